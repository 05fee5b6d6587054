#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace stage {

/// In shared memory, named by the bench's process: when steps ended, by CLOCK_MONOTONIC.
struct clock_page {
  static constexpr std::size_t places = 4096;
  std::atomic<std::uint64_t> count;
  std::atomic<std::int64_t> at_ns[places];
};

constexpr auto clock_prefix = "/troupe-bench-stage-";

} // namespace stage
