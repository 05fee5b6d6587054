#include "transport/ucx/courier.hpp"

#include <chrono>
#include <utility>

namespace troupe::net::ucx {

void courier::give(delivery& what) {
  open_.fetch_add(1, std::memory_order_relaxed);
  bool wake = false;
  {
    const std::lock_guard guard{mutex_};
    line_.push_back(std::exchange(what, {}));
    waiting_.store(line_.size(), std::memory_order_release);
    wake = sleeps_;
  }
  if (!thread_.joinable())
    thread_ = std::thread{[this] { run(); }};
  else if (wake)
    given_.notify_one();
}

void courier::stop() {
  if (!thread_.joinable())
    return;
  {
    const std::lock_guard guard{mutex_};
    stopping_ = true;
  }
  given_.notify_one();
  thread_.join();
}

bool courier::next(delivery& what) {
  const auto until = std::chrono::steady_clock::now() + spin_;
  while (waiting_.load(std::memory_order_acquire) == 0 && std::chrono::steady_clock::now() < until)
    __builtin_ia32_pause();
  std::unique_lock lock{mutex_};
  sleeps_ = true;
  given_.wait(lock, [this] { return stopping_ || !line_.empty(); });
  sleeps_ = false;
  if (line_.empty())
    return false;
  what = std::move(line_.front());
  line_.pop_front();
  waiting_.store(line_.size(), std::memory_order_relaxed);
  return true;
}

void courier::run() {
  for (delivery what; next(what); what = {}) {
    hand_over_(what);
    open_.fetch_sub(1, std::memory_order_release);
  }
}

} // namespace troupe::net::ucx
