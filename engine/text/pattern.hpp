#pragma once

#include "engine/text/json_view.hpp"
#include "engine/text/regex.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::engine::text {

/// What parts of several kinds look for: {"String": "..."} found as it is, or {"Regex": "..."}.
class pattern {
public:
  /// @errors invalid_argument, unsupported, limit_exceeded: with the place in the file
  [[nodiscard]] static result<pattern> load(const json_view& at);

  /// All matches from left to right, none overlapping another.
  /// @errors limit_exceeded: as regex::find_all
  [[nodiscard]] result<std::vector<byte_range>> find_all(std::string_view text) const;

  /// Replaces every match in `text` by `content`.
  /// @errors limit_exceeded: as find_all, or the text would grow beyond max_text_bytes
  [[nodiscard]] result<void> replace_all(std::string& text, std::string_view content) const;

  /// The literal, where this is one.
  [[nodiscard]] const std::string& literal() const noexcept { return literal_; }
  [[nodiscard]] bool is_literal() const noexcept { return !regex_; }

private:
  std::string literal_;
  std::optional<regex> regex_;
};

/// The most bytes that a text may have, at the start or after any normalizer.
inline constexpr std::size_t max_text_bytes = std::size_t{64} << 20U;

} // namespace troupe::engine::text
