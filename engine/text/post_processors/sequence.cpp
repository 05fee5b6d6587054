#include "engine/text/post_processors/post_processor.hpp"

#include <utility>

namespace troupe::engine::text {

namespace {

/// Several post-processors, one after the other.
class post_processor_sequence final : public post_processor {
public:
  explicit post_processor_sequence(std::vector<post_processor_ptr> parts)
      : parts_{std::move(parts)} {}

  void apply(std::vector<token_id>& ids, bool add_special_tokens) const override {
    for (const auto& part : parts_)
      part->apply(ids, add_special_tokens);
  }

private:
  std::vector<post_processor_ptr> parts_;
};

} // namespace

result<post_processor_ptr> make_post_processor_sequence(const json_view& at) {
  const auto list = at.child("processors");
  if (!list)
    return fail(list.error());
  const auto elements = list->elements();
  if (!elements)
    return fail(elements.error());
  std::vector<post_processor_ptr> parts;
  for (const json_view& element : *elements) {
    auto part = make_post_processor(element);
    if (!part)
      return part;
    parts.push_back(std::move(*part));
  }
  return std::make_unique<post_processor_sequence>(std::move(parts));
}

} // namespace troupe::engine::text
