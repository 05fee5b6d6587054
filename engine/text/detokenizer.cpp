#include "engine/text/detokenizer.hpp"

#include "engine/text/tokenizer.hpp"
#include "engine/text/tokenizer_parts.hpp"

#include <utility>

namespace troupe::engine::text {

detokenizer::detokenizer(const tokenizer& source, detokenizer_options options)
    : source_{&source}, options_{options}, states_(source.parts().decode.size()) {}

std::string detokenizer::push(token_id id) {
  if (options_.skip_special_tokens && source_->is_special(id))
    return {};
  const auto text = source_->parts().text_of(id);
  if (!text)
    return {};
  current_.clear();
  current_.add(*text, true, true);
  return run(0);
}

std::string detokenizer::flush() {
  std::string rest;
  const auto& stages = source_->parts().decode;
  for (std::size_t i = 0; i < stages.size(); ++i) {
    current_.clear();
    stages[i]->finish(states_[i], current_);
    rest += run(i + 1);
  }
  states_.assign(stages.size(), {});
  return rest;
}

std::string detokenizer::run(std::size_t first) {
  const auto& stages = source_->parts().decode;
  for (std::size_t stage = first; stage < stages.size(); ++stage) {
    next_.clear();
    for (std::size_t i = 0; i < current_.size(); ++i)
      stages[stage]->push(states_[stage], current_[i], next_);
    std::swap(current_, next_);
  }
  return current_.text();
}

} // namespace troupe::engine::text
