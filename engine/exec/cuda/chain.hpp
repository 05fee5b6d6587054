#pragma once

#include "engine/exec/cuda/runtime.hpp"

#include <utility>

namespace troupe::engine::cuda {

/// The first error of steps that follow each other.
class chain {
public:
  template <class Step>
  chain& then(Step step) {
    if (state_)
      state_ = step();
    return *this;
  }
  template <class Step>
  chain& take(device_buffer& to, Step step) {
    return then([&]() -> result<void> {
      auto made = step();
      if (!made)
        return fail(made.error());
      to = std::move(*made);
      return {};
    });
  }
  [[nodiscard]] const result<void>& state() const { return state_; }

private:
  result<void> state_;
};

} // namespace troupe::engine::cuda
