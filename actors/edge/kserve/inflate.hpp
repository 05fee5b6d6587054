#pragma once

#include "actors/edge/kserve/failure.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace troupe::actors::kserve {

/// Unpacks a body that came with Content-Encoding gzip or deflate.
/// @errors invalid_arg: damaged or cut off, or more than `most` bytes unpacked
[[nodiscard]] outcome<std::string> inflate_body(std::string_view packed, std::uint64_t most);

} // namespace troupe::actors::kserve
