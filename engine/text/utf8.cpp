#include "engine/text/utf8.hpp"

#include <utf8proc.h>

namespace troupe::engine::text {

namespace {

/// What may follow a lead byte: how many bytes, and the range of the first of them.
struct lead_info {
  std::uint8_t trailing = 0;
  std::uint8_t low = 0x80;
  std::uint8_t high = 0xBF;
};

constexpr lead_info lead_of(std::uint8_t byte) noexcept {
  if (byte >= 0xC2 && byte <= 0xDF)
    return {1, 0x80, 0xBF};
  if (byte == 0xE0)
    return {2, 0xA0, 0xBF};
  if (byte == 0xED)
    return {2, 0x80, 0x9F};
  if (byte >= 0xE1 && byte <= 0xEF)
    return {2, 0x80, 0xBF};
  if (byte == 0xF0)
    return {3, 0x90, 0xBF};
  if (byte >= 0xF1 && byte <= 0xF3)
    return {3, 0x80, 0xBF};
  if (byte == 0xF4)
    return {3, 0x80, 0x8F};
  return {};
}

utf8proc_category_t category(char32_t code) noexcept {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code));
}

} // namespace

utf8_char decode_utf8(std::string_view text) noexcept {
  const auto first = static_cast<std::uint8_t>(text[0]);
  if (first < 0x80)
    return {first, 1, true, false};
  const lead_info lead = lead_of(first);
  if (lead.trailing == 0)
    return {};
  char32_t code = first & (0x3FU >> lead.trailing);
  for (std::uint8_t i = 1; i <= lead.trailing; ++i) {
    if (i >= text.size())
      return {0xFFFD, i, false, true};
    const auto byte = static_cast<std::uint8_t>(text[i]);
    const std::uint8_t low = i == 1 ? lead.low : 0x80;
    const std::uint8_t high = i == 1 ? lead.high : 0xBF;
    if (byte < low || byte > high)
      return {0xFFFD, i, false, false};
    code = (code << 6U) | (byte & 0x3FU);
  }
  return {code, static_cast<std::uint8_t>(lead.trailing + 1), true, false};
}

void append_utf8(std::string& out, char32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
    return;
  }
  utf8proc_uint8_t bytes[4];
  const auto size = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code), bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(size));
}

std::size_t find_invalid_utf8(std::string_view text) noexcept {
  std::size_t at = 0;
  while (at < text.size()) {
    if (static_cast<std::uint8_t>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    const utf8_char next = decode_utf8(text.substr(at));
    if (!next.valid)
      return at;
    at += next.bytes;
  }
  return std::string_view::npos;
}

void move_utf8_lossy(std::string& bytes, std::string& out, bool at_end) {
  std::size_t at = 0;
  while (at < bytes.size()) {
    const utf8_char next = decode_utf8(std::string_view{bytes}.substr(at));
    if (next.truncated && !at_end)
      break;
    if (next.valid)
      out.append(bytes, at, next.bytes);
    else
      out += "\xEF\xBF\xBD";
    at += next.bytes;
  }
  bytes.erase(0, at);
}

std::string to_utf8_lossy(std::string bytes) {
  std::string valid;
  move_utf8_lossy(bytes, valid, true);
  return valid;
}

bool is_space(char32_t code) noexcept {
  if (code < 0x80)
    return code == ' ' || (code >= 0x09 && code <= 0x0D);
  return code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
         code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

bool is_word(char32_t code) noexcept {
  switch (category(code)) {
  case UTF8PROC_CATEGORY_LU:
  case UTF8PROC_CATEGORY_LL:
  case UTF8PROC_CATEGORY_LT:
  case UTF8PROC_CATEGORY_LM:
  case UTF8PROC_CATEGORY_LO:
  case UTF8PROC_CATEGORY_MN:
  case UTF8PROC_CATEGORY_MC:
  case UTF8PROC_CATEGORY_ME:
  case UTF8PROC_CATEGORY_ND:
  case UTF8PROC_CATEGORY_NL:
  case UTF8PROC_CATEGORY_PC:
    return true;
  default:
    break;
  }
  // The joiners, and the enclosed letters: symbols that are alphabetic all the same.
  return code == 0x200C || code == 0x200D || (code >= 0x24B6 && code <= 0x24E9) ||
         (code >= 0x1F130 && code <= 0x1F149) || (code >= 0x1F150 && code <= 0x1F169) ||
         (code >= 0x1F170 && code <= 0x1F189);
}

bool is_numeric(char32_t code) noexcept {
  const auto found = category(code);
  return found == UTF8PROC_CATEGORY_ND || found == UTF8PROC_CATEGORY_NL ||
         found == UTF8PROC_CATEGORY_NO;
}

} // namespace troupe::engine::text
