#pragma once

// What bench_stage is made of: processes whose CPU time is read, a bare grpc++ server, clients.

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace stage {

using steady = std::chrono::steady_clock;

/// Clients at a time, each a stream.
constexpr int streams = 64;
/// How long a simulated step takes, and how often the bare server sends. Also what stage_clock.cpp
/// takes for the end of a step.
constexpr std::int64_t step_ns = 4'000'000;

/// CPUs by number; last -1: all that there are.
struct cpu_range {
  int first = 0;
  int last = -1;
};
/// Keeps this thread, and those and the processes that it starts, on these.
void run_on(const cpu_range& cpus);

/// A child process that says where it listens.
class process {
public:
  /// Waits until a line begins with `ready`. Ends the bench when it does not.
  process(const std::vector<std::string>& command, const std::string& preload,
          const std::string& ready, const cpu_range& cpus);
  ~process();
  process(const process&) = delete;
  process& operator=(const process&) = delete;

  /// The port in the first line that holds `scheme`://.
  [[nodiscard]] int port(const std::string& scheme) const;
  /// Of all its threads, in seconds.
  [[nodiscard]] double cpu_s() const;
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }

private:
  pid_t pid_ = 0;
  int out_ = -1;
  std::string said_;
};

/// User and system time of a process and all that come from it, in seconds, to 10 ms.
[[nodiscard]] double tree_cpu_s(pid_t root);

/// Runs a bare server of the callback API until it is killed: ModelInfer echoes the first input,
/// and ModelStreamInfer sends `id` messages that are `message` but for their text, one a tick.
int run_bare(const std::string& message);

/// What a run of streams brought.
struct stream_run {
  std::uint64_t messages = 0;
  double seconds = 0;
};
/// `streams` streams at once, each with a request for `tokens` tokens.
[[nodiscard]] stream_run run_streams(int grpc_port, int tokens);
/// The same over generate_stream.
[[nodiscard]] stream_run run_events(int http_port, int tokens);
/// One response of a stream, as bytes.
[[nodiscard]] std::string one_message(int grpc_port);

/// Requests a second of 1 KiB, `clients` at a time.
[[nodiscard]] double run_echo(int grpc_port, const std::string& model, int clients, int requests);

/// When the first byte of an event came, of one generate_stream.
[[nodiscard]] steady::time_point first_event(int http_port, steady::time_point& sent);

/// The ends of simulated steps, as stage_clock.cpp saw them. Made before the process is started.
class step_ends {
public:
  step_ends();
  ~step_ends();
  step_ends(const step_ends&) = delete;
  step_ends& operator=(const step_ends&) = delete;
  /// The first at or behind this time; the epoch when none came.
  [[nodiscard]] steady::time_point first_after(steady::time_point when) const;

private:
  void* memory_ = nullptr;
};

/// What a hybrid that only forwards adds, in nanoseconds.
struct forward_cost {
  double request_ns = 0;
  double plain_request_ns = 0;
  double token_ns = 0;
  double plain_token_ns = 0;
};
[[nodiscard]] forward_cost measure_forward(const std::string& repository,
                                           const std::string& backends);

[[noreturn]] void give_up(const std::string& why);

} // namespace stage
