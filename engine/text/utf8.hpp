#pragma once

#include "troupe/base/error.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace troupe::engine::text {

/// One step through UTF-8.
struct utf8_char {
  /// The code point; 0xFFFD where the bytes are not valid.
  char32_t code = 0xFFFD;
  /// Bytes taken: those of the character, or of the longest start of one (at least 1).
  std::uint8_t bytes = 1;
  bool valid = false;
  /// Not valid only because the text ends inside the character.
  bool truncated = false;
};

/// Reads the character at the start of `text`, which must not be empty. Overlong forms, surrogates
/// and code points above 0x10FFFF are not valid (Unicode's table 3-7).
[[nodiscard]] utf8_char decode_utf8(std::string_view text) noexcept;

/// Appends `code` to `out`.
void append_utf8(std::string& out, char32_t code);

/// The offset of the first byte that does not belong to valid UTF-8; npos if all is valid.
[[nodiscard]] std::size_t find_invalid_utf8(std::string_view text) noexcept;

/// Moves what is certain of `bytes` to the end of `out`: whole characters as they are, each longest
/// start of a character that cannot be completed as U+FFFD. At most three bytes stay behind; with
/// `at_end` none does.
void move_utf8_lossy(std::string& bytes, std::string& out, bool at_end);
/// All of `bytes` as move_utf8_lossy() makes it.
[[nodiscard]] std::string to_utf8_lossy(std::string bytes);

/// Whether `text` may be cut at `offset` without parting a character.
[[nodiscard]] inline bool is_boundary(std::string_view text, std::size_t offset) noexcept {
  return offset >= text.size() || (static_cast<unsigned char>(text[offset]) & 0xC0U) != 0x80U;
}

/// Unicode's White_Space.
[[nodiscard]] bool is_space(char32_t code) noexcept;
/// What \w matches in Unicode: letters, marks, decimal digits, connectors and joiners.
[[nodiscard]] bool is_word(char32_t code) noexcept;
/// The general categories Nd, Nl and No.
[[nodiscard]] bool is_numeric(char32_t code) noexcept;

} // namespace troupe::engine::text
