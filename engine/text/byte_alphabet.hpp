#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace troupe::engine::text {

/// GPT-2's alphabet: every byte has a printable character of its own, so that byte strings can
/// stand in a JSON vocabulary. Printable Latin-1 stands for itself, the other bytes for U+0100 and
/// up.

/// The character of `byte`, in UTF-8 (one or two bytes).
[[nodiscard]] std::string_view byte_character(unsigned char byte) noexcept;

/// `bytes` written in the alphabet.
[[nodiscard]] std::string to_byte_alphabet(std::string_view bytes);

/// The bytes that `text` stands for, or nothing where a character of it is not in the alphabet.
[[nodiscard]] std::optional<std::string> from_byte_alphabet(std::string_view text);

} // namespace troupe::engine::text
