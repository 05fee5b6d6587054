#pragma once

#include <atomic>

namespace troupe::net::ucx {

/// Wakes the progress thread. Outlives the node, since the last owner of a received buffer may call
/// it at any time.
///
/// The sleeper publishes that it sleeps and then looks for work once more; whoever brings work
/// looks at that after the work is visible. One of the two sees the other.
class waker {
public:
  waker();
  ~waker();
  waker(const waker&) = delete;
  waker& operator=(const waker&) = delete;

  void wake() noexcept;
  /// A receiver has room again: credit is to be granted.
  void room() noexcept;
  [[nodiscard]] bool take_room() noexcept {
    return room_.load(std::memory_order_relaxed) && room_.exchange(false);
  }

  void will_sleep() noexcept { sleeps_.store(true, std::memory_order_seq_cst); }
  void is_awake() noexcept { sleeps_.store(false, std::memory_order_seq_cst); }
  [[nodiscard]] bool has_room() const noexcept { return room_.load(std::memory_order_seq_cst); }
  /// Sleeps until `descriptor` is readable, wake() is called or the time is up; -1 is for ever.
  void sleep(int descriptor, int milliseconds) noexcept;

private:
  std::atomic<bool> sleeps_ = false;
  std::atomic<bool> room_ = false;
  int event_ = -1;
};

} // namespace troupe::net::ucx
