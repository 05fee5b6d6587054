#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace troupe::config {

/// `text` in single quotes for a message: cut at 60 bytes, control characters as '?', always valid
/// UTF-8 when `text` is.
[[nodiscard]] std::string in_quotes(std::string_view text);

/// True for well-formed UTF-8, control characters included.
[[nodiscard]] bool is_utf8(std::string_view text) noexcept;

/// True for well-formed UTF-8 without control characters: what a name on the wire must be.
[[nodiscard]] bool is_clean_text(std::string_view text) noexcept;

/// "a, b or c", for messages that name the choices.
[[nodiscard]] std::string choices(const std::vector<std::string_view>& names);

/// The nearest of `names` by edit distance, or "" when none is near (more than a third of its
/// letters differ). @cost |name| * |candidate| per candidate; names over 64 bytes have no neighbour
[[nodiscard]] std::string_view nearest_name(std::string_view name,
                                            const std::vector<std::string_view>& names);

/// "; did you mean 'x'?" or "", ready to be appended.
[[nodiscard]] std::string did_you_mean(std::string_view name,
                                       const std::vector<std::string_view>& names);

} // namespace troupe::config
