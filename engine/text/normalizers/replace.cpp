#include "engine/text/normalizers/normalizer.hpp"
#include "engine/text/pattern.hpp"

#include <utility>

namespace troupe::engine::text {

namespace {

/// Replaces every match of a pattern by a fixed string.
class replace final : public normalizer {
public:
  replace(pattern what, std::string content)
      : what_{std::move(what)}, content_{std::move(content)} {}

  result<void> apply(std::string& text) const override { return what_.replace_all(text, content_); }

private:
  pattern what_;
  std::string content_;
};

} // namespace

result<normalizer_ptr> make_replace_normalizer(const json_view& at) {
  auto where = at.child("pattern");
  if (!where)
    return fail(where.error());
  auto what = pattern::load(*where);
  if (!what)
    return fail(what.error());
  auto content = at.text("content");
  if (!content)
    return fail(content.error());
  return std::make_unique<replace>(std::move(*what), std::move(*content));
}

} // namespace troupe::engine::text
