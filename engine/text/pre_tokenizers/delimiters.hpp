#pragma once

#include "engine/text/regex.hpp"

#include <cstdint>
#include <vector>

namespace troupe::engine::text {

/// What becomes of the matches of a splitting pattern.
enum class split_behavior : std::uint8_t {
  removed,
  isolated,
  merged_with_previous,
  merged_with_next,
  contiguous,
};

/// The pieces of `within` once it is split at `matches`, which lie inside it in order.
/// With `invert` the stretches between the matches count as the matches.
/// @source the five behaviours of Hugging Face tokenizers' NormalizedString::split
[[nodiscard]] std::vector<byte_range> split_at(byte_range within,
                                               const std::vector<byte_range>& matches,
                                               split_behavior behavior, bool invert);

} // namespace troupe::engine::text
