#include "engine/text/jinja/utf8.hpp"

#include <cstring>

namespace troupe::engine::jinja {

namespace {

constexpr bool within(char32_t c, char32_t first, char32_t last) noexcept {
  return c >= first && c <= last;
}

/// True in the blocks where capitals are even and their small letters follow them.
constexpr bool even_pairs(char32_t c) noexcept {
  return within(c, 0x100, 0x137) || within(c, 0x14a, 0x177) || within(c, 0x460, 0x481) ||
         within(c, 0x48a, 0x4bf) || within(c, 0x4d0, 0x52f) || within(c, 0x1e00, 0x1e95) ||
         within(c, 0x1ea0, 0x1eff) || within(c, 0x3d8, 0x3ef) || within(c, 0x1f8, 0x21f) ||
         within(c, 0x222, 0x233);
}

/// The same for blocks where capitals are odd.
constexpr bool odd_pairs(char32_t c) noexcept {
  return within(c, 0x139, 0x148) || within(c, 0x179, 0x17e) || within(c, 0x4c1, 0x4ce) ||
         within(c, 0x1cd, 0x1dc);
}

} // namespace

code_point decode(std::string_view text, std::size_t at) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80)
    return {lead, 1};
  const std::size_t size = lead >= 0xf0 && lead < 0xf5 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead >= 0xf5 || at + size > text.size())
    return {lead, 1};
  char32_t c = lead & (0x7fu >> size);
  for (std::size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xc0) != 0x80)
      return {lead, 1};
    c = (c << 6) | (byte(i) & 0x3fu);
  }
  const bool overlong = (size == 3 && c < 0x800) || (size == 4 && c < 0x10000);
  if (overlong || c > 0x10ffff)
    return {lead, 1};
  return {c, size};
}

void append_utf8(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xc0 | (c >> 6));
    out += static_cast<char>(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xe0 | (c >> 12));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3f));
    out += static_cast<char>(0x80 | (c & 0x3f));
  } else {
    out += static_cast<char>(0xf0 | (c >> 18));
    out += static_cast<char>(0x80 | ((c >> 12) & 0x3f));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3f));
    out += static_cast<char>(0x80 | (c & 0x3f));
  }
}

std::size_t count_characters(std::string_view text) noexcept {
  std::size_t count = 0;
  for (std::size_t at = 0; at < text.size(); at += decode(text, at).bytes)
    ++count;
  return count;
}

std::size_t byte_of(std::string_view text, std::size_t index) noexcept {
  std::size_t at = 0;
  for (; index > 0 && at < text.size(); --index)
    at += decode(text, at).bytes;
  return at;
}

bool is_space(char32_t c) noexcept {
  return within(c, 9, 13) || within(c, 0x1c, 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         within(c, 0x2000, 0x200a) || within(c, 0x2028, 0x2029) || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

bool is_printable(char32_t c) noexcept {
  if (c == ' ')
    return true;
  return c >= 0x20 && !within(c, 0x7f, 0xa0) && c != 0xad && !is_space(c) &&
         !within(c, 0x200b, 0x200f) && !within(c, 0x202a, 0x202e) && !within(c, 0x2060, 0x206f) &&
         !within(c, 0xd800, 0xf8ff) && c != 0xfeff && !within(c, 0xfff0, 0xfffb) &&
         !within(c, 0xe0000, 0x10ffff);
}

bool is_alpha(char32_t c) noexcept {
  if (c < 0x80)
    return within(c, 'a', 'z') || within(c, 'A', 'Z');
  if (c < 0x100)
    return c == 0xaa || c == 0xb5 || c == 0xba || (c >= 0xc0 && c != 0xd7 && c != 0xf7);
  return !within(c, 0x2000, 0x206f) && !within(c, 0x20a0, 0x2bff) && !within(c, 0x3000, 0x3004) &&
         !within(c, 0x3007, 0x3030) && !within(c, 0xd800, 0xf8ff) && !within(c, 0xfe00, 0xfe6f) &&
         !within(c, 0xff00, 0xff20) && !within(c, 0x1f000, 0x1faff) && c < 0xe0000;
}

bool is_digit(char32_t c) noexcept {
  return within(c, '0', '9') || within(c, 0x660, 0x669) || within(c, 0x966, 0x96f) ||
         within(c, 0xff10, 0xff19) || c == 0xb2 || c == 0xb3 || c == 0xb9;
}

char32_t to_upper(char32_t c) noexcept {
  if (c < 0x80)
    return within(c, 'a', 'z') ? c - 32 : c;
  if (within(c, 0xe0, 0xfe) && c != 0xf7)
    return c - 32;
  if (c == 0xff)
    return 0x178;
  if (c == 0xb5)
    return 0x39c;
  if (c == 0x131)
    return 'I';
  if (even_pairs(c))
    return c & ~char32_t{1};
  if (odd_pairs(c))
    return c % 2 == 0 ? c - 1 : c;
  if (c == 0x3ac)
    return 0x386;
  if (within(c, 0x3ad, 0x3af))
    return c - 37;
  if (c == 0x3c2)
    return 0x3a3;
  if (within(c, 0x3b1, 0x3cb))
    return c - 32;
  if (within(c, 0x430, 0x44f))
    return c - 32;
  if (within(c, 0x450, 0x45f))
    return c - 80;
  return c;
}

char32_t to_lower(char32_t c) noexcept {
  if (c < 0x80)
    return within(c, 'A', 'Z') ? c + 32 : c;
  if (within(c, 0xc0, 0xde) && c != 0xd7)
    return c + 32;
  if (c == 0x178)
    return 0xff;
  if (c == 0x130)
    return 'i';
  if (even_pairs(c))
    return c | 1;
  if (odd_pairs(c))
    return c % 2 == 1 ? c + 1 : c;
  if (c == 0x386)
    return 0x3ac;
  if (within(c, 0x388, 0x38a))
    return c + 37;
  if (within(c, 0x391, 0x3ab) && c != 0x3a2)
    return c + 32;
  if (within(c, 0x410, 0x42f))
    return c + 32;
  if (within(c, 0x400, 0x40f))
    return c + 80;
  return c;
}

std::string upper(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const auto c = decode(text, at);
    if (c.value == 0xdf && c.bytes == 2)
      out += "SS";
    else if (c.bytes == 1)
      out += c.value < 0x80 ? static_cast<char>(to_upper(c.value)) : text[at];
    else
      append_utf8(out, to_upper(c.value));
    at += c.bytes;
  }
  return out;
}

std::string lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const auto c = decode(text, at);
    if (c.bytes == 1)
      out += c.value < 0x80 ? static_cast<char>(to_lower(c.value)) : text[at];
    else
      append_utf8(out, to_lower(c.value));
    at += c.bytes;
  }
  return out;
}

std::string_view strip_left(std::string_view text) noexcept {
  std::size_t at = 0;
  while (at < text.size()) {
    const auto c = decode(text, at);
    if ((c.bytes == 1 && c.value >= 0x80) || !is_space(c.value))
      break;
    at += c.bytes;
  }
  return text.substr(at);
}

std::string_view strip_right(std::string_view text) noexcept {
  while (!text.empty()) {
    std::size_t at = text.size() - 1;
    while (at > 0 && text.size() - at < 4 && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80)
      --at;
    const auto c = decode(text, at);
    if (at + c.bytes != text.size() || (c.bytes == 1 && c.value >= 0x80) || !is_space(c.value))
      break;
    text.remove_suffix(c.bytes);
  }
  return text;
}

std::size_t find_text(std::string_view text, std::string_view needle, std::size_t from) noexcept {
  if (from > text.size())
    return std::string_view::npos;
  if (needle.empty())
    return from;
  const char* start = text.data() + from;
  const std::size_t size = text.size() - from;
  const void* hit = needle.size() == 1 ? std::memchr(start, needle[0], size)
                                       : memmem(start, size, needle.data(), needle.size());
  return hit ? static_cast<std::size_t>(static_cast<const char*>(hit) - text.data())
             : std::string_view::npos;
}

} // namespace troupe::engine::jinja
