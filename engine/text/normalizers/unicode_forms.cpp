#include "engine/text/normalizers/normalizer.hpp"
#include "engine/text/utf8.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

namespace troupe::engine::text {

namespace {

using code_points = std::vector<utf8proc_int32_t>;

/// No character decomposes into more (U+FDFA under NFKD is the longest).
constexpr std::size_t max_decomposition = 32;

int combining_class(utf8proc_int32_t code) { return utf8proc_get_property(code)->combining_class; }

/// Puts every run of combining marks in the order of their classes. utf8proc sorts these by
/// exchanging neighbours, which a long run of marks makes quadratic; this is a stable sort.
void order_marks(code_points& codes) {
  std::size_t at = 0;
  while (at < codes.size()) {
    if (combining_class(codes[at]) == 0) {
      ++at;
      continue;
    }
    std::size_t end = at;
    while (end < codes.size() && combining_class(codes[end]) != 0)
      ++end;
    std::stable_sort(codes.begin() + static_cast<std::ptrdiff_t>(at),
                     codes.begin() + static_cast<std::ptrdiff_t>(end),
                     [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    at = end;
  }
}

/// One of Unicode's four normalization forms.
class unicode_form final : public normalizer {
public:
  explicit unicode_form(int options) : options_{options | UTF8PROC_STABLE} {}

  result<void> apply(std::string& text) const override {
    const auto ascii = [](char c) { return static_cast<unsigned char>(c) < 0x80; };
    if (std::all_of(text.begin(), text.end(), ascii))
      return {};
    code_points codes = decompose(text);
    order_marks(codes);
    auto size = static_cast<utf8proc_ssize_t>(codes.size());
    if ((options_ & UTF8PROC_COMPOSE) != 0)
      size = utf8proc_normalize_utf32(codes.data(), size, static_cast<utf8proc_option_t>(options_));
    if (size < 0)
      return fail(errc::internal, "utf8proc cannot compose the text");
    text.clear();
    for (utf8proc_ssize_t i = 0; i < size; ++i)
      append_utf8(text, static_cast<char32_t>(codes[static_cast<std::size_t>(i)]));
    return {};
  }

private:
  [[nodiscard]] code_points decompose(std::string_view text) const {
    code_points codes;
    codes.reserve(text.size());
    std::array<utf8proc_int32_t, max_decomposition> parts{};
    const int options = (options_ & ~UTF8PROC_COMPOSE) | UTF8PROC_DECOMPOSE;
    int bound_class = 0;
    for (std::size_t at = 0; at < text.size();) {
      const utf8_char next = decode_utf8(text.substr(at));
      at += next.bytes;
      const auto code = static_cast<utf8proc_int32_t>(next.code);
      const auto count =
          utf8proc_decompose_char(code, parts.data(), static_cast<utf8proc_ssize_t>(parts.size()),
                                  static_cast<utf8proc_option_t>(options), &bound_class);
      if (count > 0 && static_cast<std::size_t>(count) <= parts.size())
        codes.insert(codes.end(), parts.begin(), parts.begin() + count);
      else
        codes.push_back(code);
    }
    return codes;
  }

  int options_;
};

} // namespace

result<normalizer_ptr> make_nfc(const json_view& /*at*/) {
  return std::make_unique<unicode_form>(UTF8PROC_COMPOSE);
}

result<normalizer_ptr> make_nfd(const json_view& /*at*/) {
  return std::make_unique<unicode_form>(UTF8PROC_DECOMPOSE);
}

result<normalizer_ptr> make_nfkc(const json_view& /*at*/) {
  return std::make_unique<unicode_form>(UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
}

result<normalizer_ptr> make_nfkd(const json_view& /*at*/) {
  return std::make_unique<unicode_form>(UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
}

} // namespace troupe::engine::text
