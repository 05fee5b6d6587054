#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

namespace troupe::cli {

/// Takes SIGINT and SIGTERM away from this thread and those that it starts from now on, so that one
/// place handles them: construct it before any other thread. SIGPIPE is ignored.
class signal_gate {
public:
  signal_gate();

  /// Waits for a signal; false when none came within `limit`.
  [[nodiscard]] bool wait(std::chrono::milliseconds limit) const;
};

/// From its construction on, a signal ends the process at once with `interrupted`.
class impatience {
public:
  explicit impatience(const signal_gate& gate);
  ~impatience();
  impatience(const impatience&) = delete;
  impatience& operator=(const impatience&) = delete;

private:
  std::atomic<bool> over_{false};
  std::thread thread_;
};

/// While it lives, SIGINT only sets a flag.
class interrupt_flag {
public:
  interrupt_flag();
  ~interrupt_flag();
  interrupt_flag(const interrupt_flag&) = delete;
  interrupt_flag& operator=(const interrupt_flag&) = delete;

  [[nodiscard]] bool raised() const noexcept;
  void clear() noexcept;
};

} // namespace troupe::cli
