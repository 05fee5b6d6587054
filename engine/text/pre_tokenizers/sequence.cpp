#include "engine/text/pre_tokenizers/pre_tokenizer.hpp"

#include <utility>

namespace troupe::engine::text {

namespace {

/// Several pre-tokenizers, one after the other.
class pre_tokenizer_sequence final : public pre_tokenizer {
public:
  explicit pre_tokenizer_sequence(std::vector<pre_tokenizer_ptr> parts)
      : parts_{std::move(parts)} {}

  result<void> split(split_text& text) const override {
    for (const auto& part : parts_)
      if (auto done = part->split(text); !done)
        return done;
    return {};
  }

private:
  std::vector<pre_tokenizer_ptr> parts_;
};

} // namespace

result<pre_tokenizer_ptr> make_pre_tokenizer_sequence(const json_view& at) {
  const auto list = at.child("pretokenizers");
  if (!list)
    return fail(list.error());
  const auto elements = list->elements();
  if (!elements)
    return fail(elements.error());
  std::vector<pre_tokenizer_ptr> parts;
  for (const json_view& element : *elements) {
    auto part = make_pre_tokenizer(element);
    if (!part)
      return part;
    parts.push_back(std::move(*part));
  }
  return std::make_unique<pre_tokenizer_sequence>(std::move(parts));
}

} // namespace troupe::engine::text
