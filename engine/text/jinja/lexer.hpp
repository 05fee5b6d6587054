#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "troupe/base/error.hpp"

namespace troupe::engine::jinja {

enum class token_kind : std::uint8_t {
  data, ///< Text between tags, white space already trimmed.
  variable_begin,
  variable_end,
  block_begin,
  block_end,
  name,
  text, ///< A string literal, escapes resolved.
  integer,
  floating,
  symbol, ///< An operator or bracket.
  end,
};

struct token {
  token_kind kind;
  std::string text;
  std::uint32_t line;
};

/// "name:line: what", the form of every message about a template.
[[nodiscard]] std::string located(std::string_view name, std::uint32_t line, std::string_view what);

/// Cuts a template into tokens, the last of which is `end`. Works as Jinja with trim_blocks and
/// lstrip_blocks set and keep_trailing_newline unset, which is how chat templates are rendered.
/// @errors corrupt_data: an unclosed tag, text or bracket, or a character of no token
[[nodiscard]] result<std::vector<token>> lex(std::string_view source, std::string_view name);

} // namespace troupe::engine::jinja
