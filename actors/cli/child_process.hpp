#pragma once

#include "troupe/base/error.hpp"

#include <poll.h>
#include <sys/types.h>

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace troupe::cli {

/// A process of this program whose output is printed with a name before each line, or given to
/// whoever wants it. It is asked to end when this one dies. One thread.
class child_process {
public:
  using line_taker = std::function<void(std::string line)>;
  /// @param arguments the first is its name
  /// @param taker gets the lines of both streams, which are then not printed
  [[nodiscard]] static result<child_process>
  start(const std::string& name, const std::vector<std::string>& arguments, line_taker taker = {});
  child_process() = default;
  ~child_process();
  child_process(child_process&& other) noexcept;
  child_process& operator=(child_process&& other) noexcept;

  [[nodiscard]] bool running() const noexcept { return pid_ > 0; }
  void add_to(std::vector<pollfd>& all) const;
  /// Prints what it has written. Never waits.
  void forward();
  void signal(int number) const;
  /// waitpid's status, once, when it has ended.
  [[nodiscard]] std::optional<int> ended();

private:
  /// One of its two streams.
  struct stream {
    int from = -1;
    int to = -1;
    std::string line;
  };

  void print(stream& which, bool all);
  void hand_on(int to, std::string line) const;
  void close();

  std::string name_;
  line_taker taker_;
  pid_t pid_ = 0;
  std::array<stream, 2> streams_;
};

/// "status 1" or "signal 9 (Killed)".
[[nodiscard]] std::string describe_status(int status);

} // namespace troupe::cli
