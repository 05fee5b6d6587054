#pragma once

#include <span>
#include <string>
#include <string_view>

#include "troupe/base/prng.hpp"

namespace troupe::config {

/// One to four edits: a piece put in, a range taken out, a byte changed, or a range doubled.
inline std::string mutate(std::string text, std::span<const std::string_view> pieces,
                          splitmix64& random) {
  const auto edits = 1 + random.below(4);
  for (std::uint64_t i = 0; i < edits && !text.empty(); ++i) {
    const auto at = random.below(text.size());
    const auto length = 1 + random.below(12);
    switch (random.below(4)) {
    case 0:
      text.insert(at, pieces[random.below(pieces.size())]);
      break;
    case 1:
      text.erase(at, length);
      break;
    case 2:
      text[at] = static_cast<char>(random.below(256));
      break;
    default:
      text.insert(at, text.substr(at, length));
    }
  }
  return text;
}

} // namespace troupe::config
