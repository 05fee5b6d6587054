#pragma once

#include <functional>
#include <utility>
#include <vector>

namespace troupe::actors {

/// While one lives on a thread, wakes from this thread wait for its end and then go out together:
/// the receiver wakes once and finds all that a step brought, instead of once a sequence.
class wake_batch {
public:
  wake_batch() : outer_{std::exchange(current(), this)} {}
  ~wake_batch() {
    current() = outer_;
    for (const auto& wake : waiting_)
      wake();
  }
  wake_batch(const wake_batch&) = delete;
  wake_batch& operator=(const wake_batch&) = delete;

  /// Calls `wake` now, or at the end of this thread's batch.
  static void add(const std::function<void()>& wake) {
    if (auto* batch = current(); batch != nullptr)
      batch->waiting_.push_back(wake);
    else
      wake();
  }

private:
  static wake_batch*& current() {
    thread_local wake_batch* batch = nullptr;
    return batch;
  }

  wake_batch* outer_;
  std::vector<std::function<void()>> waiting_;
};

} // namespace troupe::actors
