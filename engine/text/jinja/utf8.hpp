#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace troupe::engine::jinja {

/// One character of a UTF-8 text. A byte that begins no valid character counts as one of its own,
/// so that every text, however broken, has a length and can be cut.
struct code_point {
  char32_t value;
  std::size_t bytes;
};

/// The character at `at`, which must lie inside `text`.
[[nodiscard]] code_point decode(std::string_view text, std::size_t at) noexcept;
void append_utf8(std::string& out, char32_t c);
/// Python's len().
[[nodiscard]] std::size_t count_characters(std::string_view text) noexcept;
/// The byte where character `index` begins; the size of the text where it has fewer characters.
[[nodiscard]] std::size_t byte_of(std::string_view text, std::size_t index) noexcept;

[[nodiscard]] bool is_space(char32_t c) noexcept;
/// Whether repr() shows the character as itself. Exact for ASCII and Latin-1, and for the
/// separators and format characters above; characters not assigned are taken for printable.
[[nodiscard]] bool is_printable(char32_t c) noexcept;
/// Letters of ASCII exactly; beyond it everything outside the blocks of marks and symbols.
[[nodiscard]] bool is_alpha(char32_t c) noexcept;
[[nodiscard]] bool is_digit(char32_t c) noexcept;
/// Simple case mapping of Latin, Greek and Cyrillic; other characters stay.
[[nodiscard]] char32_t to_upper(char32_t c) noexcept;
[[nodiscard]] char32_t to_lower(char32_t c) noexcept;
[[nodiscard]] std::string upper(std::string_view text);
[[nodiscard]] std::string lower(std::string_view text);

[[nodiscard]] std::string_view strip_left(std::string_view text) noexcept;
[[nodiscard]] std::string_view strip_right(std::string_view text) noexcept;

/// Where `needle` first occurs at or after `from`; npos where it does not. Linear time, unlike
/// std::string::find, because a template chooses both texts.
[[nodiscard]] std::size_t find_text(std::string_view text, std::string_view needle,
                                    std::size_t from = 0) noexcept;

} // namespace troupe::engine::jinja
