#include "engine/text/pre_tokenizers/delimiters.hpp"

#include <algorithm>

namespace troupe::engine::text {

namespace {

struct stretch {
  byte_range range;
  bool is_match = false;
};

/// Matches and what lies between them, without gaps. Empty matches stay: they count when
/// neighbours are merged.
std::vector<stretch> stretches_of(byte_range within, const std::vector<byte_range>& matches,
                                  bool invert) {
  std::vector<stretch> stretches;
  stretches.reserve(2 * matches.size() + 1);
  std::size_t last = within.begin;
  for (const byte_range& match : matches) {
    if (match.begin != last)
      stretches.push_back({{last, match.begin}, invert});
    stretches.push_back({match, !invert});
    last = match.end;
  }
  if (last != within.end)
    stretches.push_back({{last, within.end}, invert});
  return stretches;
}

/// Joins each stretch to the one before it where `joins(this is a match, the last was)`.
template <class Joins>
std::vector<byte_range> joined(const std::vector<stretch>& stretches, Joins joins) {
  std::vector<byte_range> pieces;
  bool last_is_match = false;
  for (const stretch& next : stretches) {
    if (!pieces.empty() && joins(next.is_match, last_is_match)) {
      pieces.back().begin = std::min(pieces.back().begin, next.range.begin);
      pieces.back().end = std::max(pieces.back().end, next.range.end);
    } else {
      pieces.push_back(next.range);
    }
    last_is_match = next.is_match;
  }
  return pieces;
}

} // namespace

std::vector<byte_range> split_at(byte_range within, const std::vector<byte_range>& matches,
                                 split_behavior behavior, bool invert) {
  std::vector<stretch> stretches = stretches_of(within, matches, invert);
  const auto single_match = [](bool is_match, bool last) { return is_match && !last; };
  std::vector<byte_range> pieces;
  switch (behavior) {
  case split_behavior::removed:
    std::erase_if(stretches, [](const stretch& s) { return s.is_match; });
    [[fallthrough]];
  case split_behavior::isolated:
    pieces = joined(stretches, [](bool, bool) { return false; });
    break;
  case split_behavior::contiguous:
    pieces = joined(stretches, [](bool is_match, bool last) { return is_match == last; });
    break;
  case split_behavior::merged_with_previous:
    pieces = joined(stretches, single_match);
    break;
  case split_behavior::merged_with_next:
    std::reverse(stretches.begin(), stretches.end());
    pieces = joined(stretches, single_match);
    std::reverse(pieces.begin(), pieces.end());
    break;
  }
  std::erase_if(pieces, [](const byte_range& piece) { return piece.begin == piece.end; });
  return pieces;
}

} // namespace troupe::engine::text
