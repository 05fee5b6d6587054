#pragma once

#include "engine/text/jinja/builtin.hpp"

namespace troupe::engine::jinja {

// Operations that filters and methods of texts share.

/// First letter large, the others small.
[[nodiscard]] std::string capitalized(std::string_view text);
/// str.title(): a letter after anything but a letter is large.
[[nodiscard]] std::string title_method(std::string_view text);
/// The filter of that name: words end only at spaces, dashes and opening brackets.
[[nodiscard]] std::string title_filter(std::string_view text);
/// Strips the characters of `set` from the left and the right.
[[nodiscard]] std::string_view strip_set(std::string_view text, std::string_view set, bool left,
                                         bool right);

struct replacement {
  std::string_view from, to;
  std::int64_t count; ///< Negative: all.
};
[[nodiscard]] result<value> replace_text(runtime& rt, std::string_view text, const replacement& r);

} // namespace troupe::engine::jinja
