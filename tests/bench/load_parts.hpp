#pragma once

#include "troupe/base/ids.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

/// What benches of loads share.
namespace troupe::bench {

/// A prompt that no other seed has.
inline std::vector<token_id> prompt(std::uint32_t size, std::uint32_t seed) {
  std::vector<token_id> tokens(size);
  for (std::uint32_t i = 0; i < size; ++i)
    tokens[i] = static_cast<token_id>((i * 7919U + seed * 104729U) % 50000U);
  return tokens;
}

/// The median; 0 of nothing.
inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

} // namespace troupe::bench
