#pragma once

#include "troupe/base/error.hpp"

#include <poll.h>
#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

/// Which of its streams a child wrote to.
enum class child_stream : std::uint8_t { output, error };

/// How a child is started.
struct child_options {
  /// The program's path.
  std::string program;
  /// The first is its name.
  std::vector<std::string> arguments;
  /// Becomes the child's descriptor 3; -1 gives it none. The caller closes its own.
  int socket = -1;
  /// Takes each line that the child prints, without its end.
  std::function<void(child_stream from, std::string_view line)> on_line;
  /// A longer line comes in pieces.
  std::size_t longest_line = std::size_t{1} << 20U;
};

/// A child process that is watched: what it prints comes by lines, and its end is found without
/// waiting. Its standard input is empty, its signals have their defaults, its process group is its
/// own (a terminal's Ctrl-C reaches the parent alone), and nothing else of this process stays open
/// in it. Its owner says what its own end means for the child: the child does not end with this
/// object. Move-only; one thread at a time.
class child_process {
public:
  /// @errors io_failure: no pipe or process is to be had, or the program cannot be run
  [[nodiscard]] static result<child_process> start(child_options options);

  child_process() = default;
  /// Closes the streams and lets the child go on.
  ~child_process();
  child_process(child_process&& other) noexcept;
  child_process& operator=(child_process&& other) noexcept;
  child_process(const child_process&) = delete;
  child_process& operator=(const child_process&) = delete;

  /// Whether it has been started and its end has not been taken.
  [[nodiscard]] bool running() const noexcept { return pid_ > 0; }
  /// Adds what to poll for output.
  void add_to(std::vector<pollfd>& all) const;
  /// Hands over the lines that have come. Never waits.
  void take_output();
  void signal(int number) const;
  /// Kills it and all that it has started in its group.
  void kill_group() const;
  /// Whether it has ended. It stays to be reaped, so that its group can still be told.
  [[nodiscard]] bool has_ended() const;
  /// Waits for that, at most so long. @return has_ended()
  [[nodiscard]] bool has_ended_within(std::chrono::milliseconds limit) const;
  /// Waits for its end and hands over the rest of its output.
  /// @pre running()
  /// @return waitpid's status
  int reap();
  /// The same, once, if it has ended.
  [[nodiscard]] std::optional<int> ended();

private:
  struct stream {
    int from = -1;
    std::string line;
  };

  void take_lines(child_stream which);
  void close_streams();

  child_options options_;
  pid_t pid_ = 0;
  std::array<stream, 2> streams_;
};

/// "status 1" or "signal 9 (Killed)", of waitpid's status.
[[nodiscard]] std::string describe_exit(int status);

} // namespace troupe
