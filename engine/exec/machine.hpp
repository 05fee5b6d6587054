#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

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

/// The cores of a list as Linux writes it, "0-3,8"; none where it is no such list.
[[nodiscard]] std::vector<unsigned> cores_in(std::string_view list);

/// Keeps this thread, and those that it starts from now on, on those of `cores` that it may run on.
/// @return how many these are; 0 where there is none, and the thread then runs where it did
unsigned stay_on(std::span<const unsigned> cores) noexcept;

} // namespace troupe::engine
