#pragma once

#include <chrono>

namespace troupe {

/// A monotonic instant. Engine core never reads a clock: it is given these.
using time_point = std::chrono::steady_clock::time_point;
using duration = std::chrono::steady_clock::duration;

/// Where the time comes from; the simulation has its own.
class clock {
public:
  virtual ~clock() = default;
  [[nodiscard]] virtual time_point now() const noexcept = 0;
};

/// The clock of the machine.
class steady_clock final : public clock {
public:
  [[nodiscard]] time_point now() const noexcept override {
    return std::chrono::steady_clock::now();
  }
};

/// A clock that stands still until it is moved, for tests and the simulation.
class manual_clock final : public clock {
public:
  [[nodiscard]] time_point now() const noexcept override { return now_; }
  /// Moves the clock forward by `step` (never negative).
  void advance(duration step) noexcept { now_ += step; }

private:
  time_point now_{};
};

} // namespace troupe
