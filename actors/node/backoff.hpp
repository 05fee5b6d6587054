#pragma once

#include "troupe/base/clock.hpp"

#include <algorithm>
#include <chrono>

namespace troupe::actors {

/// How long to wait before the next restart: 50 ms doubling to 10 s, from the start again after a
/// minute without a death.
class backoff {
public:
  [[nodiscard]] std::chrono::milliseconds next(time_point now) {
    if (now - last_ > std::chrono::minutes{1})
      delay_ = first;
    last_ = now;
    const auto current = delay_;
    delay_ = std::min(delay_ * 2, most);
    return current;
  }

private:
  static constexpr std::chrono::milliseconds first{50};
  static constexpr std::chrono::milliseconds most{10'000};
  std::chrono::milliseconds delay_ = first;
  time_point last_{};
};

} // namespace troupe::actors
