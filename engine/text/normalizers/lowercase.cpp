#include "engine/text/normalizers/normalizer.hpp"
#include "engine/text/utf8.hpp"

#include <utf8proc.h>

namespace troupe::engine::text {

namespace {

/// Lowers every character on its own: a final sigma is a sigma like any other.
class lowercase final : public normalizer {
public:
  result<void> apply(std::string& text) const override {
    std::string lowered;
    lowered.reserve(text.size());
    for (std::size_t at = 0; at < text.size();) {
      const utf8_char next = decode_utf8(std::string_view{text}.substr(at));
      at += next.bytes;
      // The one character whose lower case is two: I with a dot above.
      if (next.code == 0x130)
        lowered += "i\xCC\x87";
      else
        append_utf8(lowered, static_cast<char32_t>(
                                 utf8proc_tolower(static_cast<utf8proc_int32_t>(next.code))));
    }
    text = std::move(lowered);
    return {};
  }
};

} // namespace

result<normalizer_ptr> make_lowercase(const json_view& /*at*/) {
  return std::make_unique<lowercase>();
}

} // namespace troupe::engine::text
