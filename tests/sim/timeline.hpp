#pragma once

#include "troupe/base/clock.hpp"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

namespace troupe::sim {

/// Virtual time: what is to happen and when. What is due at the same time happens in the order in
/// which it was asked for, so a run is the same every time.
class timeline {
public:
  using job = std::function<void()>;

  [[nodiscard]] time_point now() const { return now_; }
  [[nodiscard]] std::uint64_t happened() const { return happened_; }

  void after(duration time, job what) {
    waiting_.push_back({now_ + time, ++number_, std::move(what)});
    std::ranges::push_heap(waiting_, later);
  }

  /// Does the next thing. @return false when nothing is to happen any more
  bool step() {
    if (waiting_.empty())
      return false;
    std::ranges::pop_heap(waiting_, later);
    auto next = std::move(waiting_.back());
    waiting_.pop_back();
    now_ = next.when;
    ++happened_;
    next.what();
    return true;
  }

private:
  struct entry {
    time_point when;
    std::uint64_t number = 0;
    job what;
  };

  static bool later(const entry& a, const entry& b) {
    return std::pair{a.when, a.number} > std::pair{b.when, b.number};
  }

  /// Not zero, so that a time point that nobody set stands out.
  time_point now_{std::chrono::hours{1}};
  std::uint64_t number_ = 0;
  std::uint64_t happened_ = 0;
  std::vector<entry> waiting_;
};

} // namespace troupe::sim
