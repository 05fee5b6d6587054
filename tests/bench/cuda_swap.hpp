#pragma once

#include <cstdint>

namespace troupe::bench {

/// KV blocks of Llama-3.1-8B to host memory and back: GB/s of the executor's way beside one copy of
/// as many bytes in one piece, which is what the link gives. How long page-locking so many GiB
/// takes, and what it does to launches meanwhile. Prints lines.
/// @pre    the device is open
void measure_swap(std::uint32_t count, std::uint64_t gib);

} // namespace troupe::bench
