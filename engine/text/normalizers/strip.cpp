#include "engine/text/normalizers/normalizer.hpp"
#include "engine/text/utf8.hpp"

namespace troupe::engine::text {

namespace {

/// Cuts white space off the ends of the text.
class strip final : public normalizer {
public:
  strip(bool left, bool right) : left_{left}, right_{right} {}

  result<void> apply(std::string& text) const override {
    std::size_t first_kept = std::string::npos;
    std::size_t last_kept = 0;
    for (std::size_t at = 0; at < text.size();) {
      const utf8_char next = decode_utf8(std::string_view{text}.substr(at));
      at += next.bytes;
      if (is_space(next.code))
        continue;
      if (first_kept == std::string::npos)
        first_kept = at - next.bytes;
      last_kept = at;
    }
    if (first_kept == std::string::npos) {
      if (left_ || right_)
        text.clear();
      return {};
    }
    if (right_)
      text.erase(last_kept);
    if (left_)
      text.erase(0, first_kept);
    return {};
  }

private:
  bool left_;
  bool right_;
};

} // namespace

result<normalizer_ptr> make_strip_normalizer(const json_view& at) {
  const auto left = at.flag("strip_left", false);
  if (!left)
    return fail(left.error());
  const auto right = at.flag("strip_right", false);
  if (!right)
    return fail(right.error());
  return std::make_unique<strip>(*left, *right);
}

} // namespace troupe::engine::text
