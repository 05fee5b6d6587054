#pragma once

#include "troupe/base/error.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::engine::text {

/// Looks for stop strings in text as it comes and holds back only what may still become one. The
/// match that ends first wins, and of those that end together the longest; so the outcome does not
/// depend on how the text is cut into pieces. A copy goes on from the same place.
class stop_matcher {
public:
  /// With `include_match` the stop string itself is emitted too.
  /// @errors invalid_argument: an empty stop string, or one that is not valid UTF-8;
  ///         limit_exceeded: more than 1024 of them, or more than 64 KiB together
  [[nodiscard]] static result<stop_matcher> make(std::span<const std::string> stops,
                                                 bool include_match);

  /// Matches nothing.
  stop_matcher() = default;

  /// Takes more text; the text that is certain not to be in a match, or, once there is one, the
  /// rest of the text before it (with it, where it is included). After a match nothing more comes
  /// out.
  /// @cost amortised O(bytes * stop strings)
  [[nodiscard]] std::string push(std::string_view text);

  /// The text has ended: what was held back.
  [[nodiscard]] std::string flush();

  /// Which of the stop strings was matched.
  [[nodiscard]] std::optional<std::size_t> matched() const noexcept { return matched_; }

private:
  /// One stop string with the failure function of Knuth, Morris and Pratt.
  struct needle {
    std::string text;
    std::vector<std::uint32_t> fallback;
    /// How many bytes of it the text ends with.
    std::uint32_t progress = 0;
  };

  std::vector<needle> needles_;
  std::string held_;
  std::optional<std::size_t> matched_;
  bool include_match_ = false;
};

} // namespace troupe::engine::text
