#pragma once

#include <cstddef>
#include <functional>
#include <utility>
#include <vector>

namespace troupe::actors {

/// While one lives on a thread, wakes from this thread wait for its end and then go out together:
/// the receiver wakes once and finds all that a step brought, instead of once a sequence.
class wake_batch {
public:
  /// Up to so many together, a receiver's work may be done in the thread that wakes it.
  static constexpr std::size_t few_together = 4;

  /// Without `gathers` wakes go out as they come: for who knows that there is only one.
  explicit wake_batch(bool gathers = true) : gathers_{gathers}, outer_{current()} {
    if (gathers_)
      current() = this;
  }
  ~wake_batch() {
    if (!gathers_)
      return;
    current() = outer_;
    const auto outer_count = std::exchange(count(), waiting_.size());
    for (const auto& wake : waiting_)
      wake();
    count() = outer_count;
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

  /// Of a wake that is called: so few go out together that it may do its receiver's work at once,
  /// in this thread, instead of waking the receiver's.
  [[nodiscard]] static bool few() { return count() <= few_together; }

private:
  static std::size_t& count() {
    thread_local std::size_t together = 1;
    return together;
  }
  static wake_batch*& current() {
    thread_local wake_batch* batch = nullptr;
    return batch;
  }

  bool gathers_;
  wake_batch* outer_;
  std::vector<std::function<void()>> waiting_;
};

} // namespace troupe::actors
