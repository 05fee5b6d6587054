#include "engine/text/normalizers/normalizer.hpp"

#include <utility>
#include <vector>

namespace troupe::engine::text {

namespace {

/// Several normalizers, one after the other.
class normalizer_sequence final : public normalizer {
public:
  explicit normalizer_sequence(std::vector<normalizer_ptr> parts) : parts_{std::move(parts)} {}

  result<void> apply(std::string& text) const override {
    for (const auto& part : parts_)
      if (auto done = part->apply(text); !done)
        return done;
    return {};
  }

private:
  std::vector<normalizer_ptr> parts_;
};

} // namespace

result<normalizer_ptr> make_normalizer_sequence(const json_view& at) {
  const auto list = at.child("normalizers");
  if (!list)
    return fail(list.error());
  const auto elements = list->elements();
  if (!elements)
    return fail(elements.error());
  std::vector<normalizer_ptr> parts;
  for (const json_view& element : *elements) {
    auto part = make_normalizer(element);
    if (!part)
      return part;
    parts.push_back(std::move(*part));
  }
  return std::make_unique<normalizer_sequence>(std::move(parts));
}

} // namespace troupe::engine::text
