#pragma once

#include <cstddef>
#include <string>

namespace troupe::bench {

/// What ucx_perftest moves between two processes of this machine: active messages of `bytes`, with
/// the error handling that the wire has. @param lanes UCX_TLS
/// @return MB/s (10^6 bytes); 0 when it is not installed or does not answer
[[nodiscard]] double ucx_megabytes(const std::string& lanes, std::size_t bytes, int messages);

} // namespace troupe::bench
