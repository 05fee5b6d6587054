#pragma once

#include <cstdint>

namespace troupe::engine {

/// Bytes of memory that this process could still take without swapping: the least of what the
/// machine and the control group have left. 0 when neither says.
[[nodiscard]] std::uint64_t available_memory_bytes();

/// Of `asked` bytes of host memory for preempted sequences what a rank of so many takes: their
/// shares are at most half of what is available, where that is known.
[[nodiscard]] std::uint64_t swap_bytes_within(std::uint64_t asked, std::uint32_t ranks,
                                              std::uint64_t available) noexcept;

/// Cores that this process may run on, at least 1.
[[nodiscard]] unsigned usable_cores() noexcept;

} // namespace troupe::engine
