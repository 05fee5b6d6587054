#include "engine/text/byte_alphabet.hpp"

#include "engine/text/utf8.hpp"

#include <array>
#include <cstdint>

namespace troupe::engine::text {

namespace {

constexpr std::size_t alphabet_end = 0x144;

struct alphabet_tables {
  /// UTF-8 of each byte's character, with its length.
  std::array<std::array<char, 2>, 256> characters{};
  std::array<std::uint8_t, 256> sizes{};
  /// The byte of each code point, or -1.
  std::array<std::int16_t, alphabet_end> bytes{};
};

constexpr bool stands_for_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

consteval alphabet_tables make_tables() {
  alphabet_tables made;
  for (auto& byte : made.bytes)
    byte = -1;
  unsigned next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const unsigned code = stands_for_itself(byte) ? byte : next++;
    made.bytes[code] = static_cast<std::int16_t>(byte);
    made.sizes[byte] = code < 0x80 ? 1 : 2;
    if (code < 0x80)
      made.characters[byte] = {static_cast<char>(code), 0};
    else
      made.characters[byte] = {static_cast<char>(0xC0U | (code >> 6U)),
                               static_cast<char>(0x80U | (code & 0x3FU))};
  }
  return made;
}

constexpr alphabet_tables tables = make_tables();

} // namespace

std::string_view byte_character(unsigned char byte) noexcept {
  return {tables.characters[byte].data(), tables.sizes[byte]};
}

std::string to_byte_alphabet(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() + bytes.size() / 2);
  for (const char byte : bytes)
    text += byte_character(static_cast<unsigned char>(byte));
  return text;
}

std::optional<std::string> from_byte_alphabet(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  while (!text.empty()) {
    const utf8_char next = decode_utf8(text);
    if (!next.valid || next.code >= alphabet_end || tables.bytes[next.code] < 0)
      return std::nullopt;
    bytes += static_cast<char>(tables.bytes[next.code]);
    text.remove_prefix(next.bytes);
  }
  return bytes;
}

} // namespace troupe::engine::text
