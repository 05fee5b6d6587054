#pragma once

#include <cstdint>

namespace troupe::engine {

/// Bytes of memory that this process could still take without swapping: the least of what the
/// machine and the control group have left. 0 when neither says.
[[nodiscard]] std::uint64_t available_memory_bytes();

/// Cores that this process may run on, at least 1.
[[nodiscard]] unsigned usable_cores() noexcept;

} // namespace troupe::engine
