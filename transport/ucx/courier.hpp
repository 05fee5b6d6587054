#pragma once

#include "transport/mesh.hpp"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace troupe::net::ucx {

/// What a turn of the progress thread brought, for the user: first the events, then the jobs.
struct delivery {
  std::vector<event> events;
  std::vector<std::function<void()>> jobs;

  [[nodiscard]] bool empty() const noexcept { return events.empty() && jobs.empty(); }
};

/// A second thread that calls the user, so that the progress thread can copy the next payload
/// meanwhile. What is given is handed over in its order, one delivery at a time; whoever calls the
/// user in a thread of his own asks `busy` first, and sees all that the courier did.
class courier {
public:
  /// @param hand_over calls the user with one delivery and leaves it empty
  /// @param spin how long the thread looks for more before it sleeps
  courier(std::function<void(delivery&)> hand_over, duration spin)
      : hand_over_{std::move(hand_over)}, spin_{spin} {}
  ~courier() { stop(); }
  courier(const courier&) = delete;
  courier& operator=(const courier&) = delete;

  /// Whether something that was given is not handed over yet.
  [[nodiscard]] bool busy() const noexcept { return open_.load(std::memory_order_acquire) != 0; }
  /// Takes what is in `what` and leaves it empty. Starts the thread when it is the first. One
  /// thread gives.
  void give(delivery& what);
  /// Hands over what is left, and ends the thread.
  void stop();

private:
  void run();
  /// @return false when the courier is to end
  [[nodiscard]] bool next(delivery& what);

  std::function<void(delivery&)> hand_over_;
  duration spin_;
  std::mutex mutex_;
  std::condition_variable given_;
  std::deque<delivery> line_;
  bool stopping_ = false;
  bool sleeps_ = false;
  std::atomic<std::size_t> waiting_ = 0;
  std::atomic<std::size_t> open_ = 0;
  std::thread thread_;
};

} // namespace troupe::net::ucx
