#pragma once

#include "actors/backend/custom_exchange.hpp"
#include "actors/backend/library_host.hpp"
#include "actors/backend/process_messages.hpp"
#include "troupe/base/child_process.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace troupe::actors {

struct link_options {
  /// "the process of the backend 'odd' of model 'm'", for errors.
  std::string who;
  /// Takes its log lines, what it prints, and its numbers.
  std::shared_ptr<library_host> host;
  /// Called once, from the link's thread, when the child has ended and was not told to.
  std::function<void()> on_lost;
};

/// A child process that hosts one instance of a backend, and the way to it: a pair of sockets that
/// nobody else can reach. One thread of the link's own does all reading and writing, and started
/// the child, which the system kills when that thread ends, however it ends. Thread-safe.
class process_link {
public:
  /// @errors unsupported: the program has not said how such a process is started; io_failure
  [[nodiscard]] static result<std::unique_ptr<process_link>> start(link_options options);
  /// Kills a child that is still there.
  ~process_link();
  process_link(const process_link&) = delete;
  process_link& operator=(const process_link&) = delete;

  /// Blocks until the child has answered. One call at a time. A child that does not answer within
  /// `limit` is killed. `ways` take what comes of the requests of an execute, also after it has
  /// returned.
  /// @errors what the library returned; internal: the process ended or was ended meanwhile
  [[nodiscard]] result<process::Report> call(process::Order order, std::chrono::milliseconds limit,
                                             const custom_ways& ways = {});
  [[nodiscard]] bool alive() const;
  /// Waits for open exchanges, finalizes, and waits for the process's end; kills at `limit`.
  void end(std::chrono::milliseconds limit);

private:
  using steady = std::chrono::steady_clock;
  struct open_exchange {
    std::shared_ptr<custom_exchange> way;
    bool forgotten = false;
  };
  struct open_call {
    std::uint64_t id = 0;
    std::string what;
    std::chrono::milliseconds limit{0};
    steady::time_point until{};
    std::promise<result<process::Report>> answer;
  };
  explicit process_link(link_options options) : options_{std::move(options)} {}

  void run(std::promise<result<void>> started);
  [[nodiscard]] result<void> spawn();
  [[nodiscard]] bool go_on();
  [[nodiscard]] int pause() const;
  void send_some();
  [[nodiscard]] bool receive();
  [[nodiscard]] bool take_all();
  void take(process::Report report);
  void take_exchange(process::Report& report);
  void begin();
  void answer_call(process::Report report);
  void watch_times();
  void forget_unwanted();
  void kill_it(std::string why);
  [[nodiscard]] std::string reap();
  void bury(const std::string& how);
  void close_all();
  void wake() const;

  link_options options_;
  std::thread thread_;
  child_process child_;
  int socket_ = -1;
  int waker_ = -1;
  std::string inbox_;
  std::string killed_for_;

  mutable std::mutex mutex_;
  std::string outbox_;
  std::size_t sent_ = 0;
  std::uint64_t last_id_ = 0;
  std::map<std::uint64_t, open_exchange> open_;
  std::optional<open_call> call_;
  bool ending_ = false;
  /// Until the child has said that it is there.
  std::optional<steady::time_point> start_by_;
  std::optional<steady::time_point> end_by_;
  /// Set when the child has ended.
  std::optional<error> dead_;
};

} // namespace troupe::actors
