#include "engine/text/normalizers/normalizer.hpp"

#include <utility>

namespace troupe::engine::text {

namespace {

/// Puts a fixed string before every text that is not empty.
class prepend final : public normalizer {
public:
  explicit prepend(std::string head) : head_{std::move(head)} {}

  result<void> apply(std::string& text) const override {
    if (!text.empty())
      text.insert(0, head_);
    return {};
  }

private:
  std::string head_;
};

} // namespace

result<normalizer_ptr> make_prepend(const json_view& at) {
  auto head = at.text("prepend");
  if (!head)
    return fail(head.error());
  return std::make_unique<prepend>(std::move(*head));
}

} // namespace troupe::engine::text
