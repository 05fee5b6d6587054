#pragma once

#include "troupe/base/error.hpp"

#include <string>
#include <string_view>

namespace troupe::engine::text {

/// Translates a pattern of Oniguruma's Ruby syntax over Unicode, in which tokenizer.json is
/// written, into one of PCRE2 that matches the same: \s, \w, \d, \h, \b and the POSIX classes mean
/// Oniguruma's sets, \p{Name} is a script and not its extensions, {,n} is a repeat.
/// @errors unsupported: the pattern uses a construct that the two read differently and that no
///         known tokenizer needs (recursion, callouts, set operations, most options); the note
///         names it and its offset
[[nodiscard]] result<std::string> translate_pattern(std::string_view pattern);

} // namespace troupe::engine::text
