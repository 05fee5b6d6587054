#include "engine/text/pattern.hpp"
#include "engine/text/pre_tokenizers/delimiters.hpp"
#include "engine/text/pre_tokenizers/pre_tokenizer.hpp"

#include <array>
#include <optional>
#include <utility>

namespace troupe::engine::text {

namespace {

/// Splits every piece at the matches of a pattern.
class pattern_split final : public pre_tokenizer {
public:
  pattern_split(pattern delimiter, split_behavior behavior, bool invert)
      : delimiter_{std::move(delimiter)}, behavior_{behavior}, invert_{invert} {}

  result<void> split(split_text& text) const override {
    std::vector<byte_range> pieces;
    for (const byte_range& piece : text.pieces) {
      const auto matches = delimiter_.find_all(text.view(piece));
      if (!matches)
        return fail(matches.error());
      const byte_range whole{0, piece.end - piece.begin};
      for (const byte_range& part : split_at(whole, *matches, behavior_, invert_))
        pieces.push_back({piece.begin + part.begin, piece.begin + part.end});
    }
    text.pieces = std::move(pieces);
    return {};
  }

private:
  pattern delimiter_;
  split_behavior behavior_;
  bool invert_;
};

std::optional<split_behavior> behavior_named(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, split_behavior>, 5> names{{
      {"Removed", split_behavior::removed},
      {"Isolated", split_behavior::isolated},
      {"MergedWithPrevious", split_behavior::merged_with_previous},
      {"MergedWithNext", split_behavior::merged_with_next},
      {"Contiguous", split_behavior::contiguous},
  }};
  for (const auto& [known, behavior] : names)
    if (known == name)
      return behavior;
  return std::nullopt;
}

} // namespace

result<pre_tokenizer_ptr> make_split(const json_view& at) {
  const auto where = at.child("pattern");
  if (!where)
    return fail(where.error());
  auto delimiter = pattern::load(*where);
  if (!delimiter)
    return fail(delimiter.error());
  const auto name = at.text("behavior");
  if (!name)
    return fail(name.error());
  const auto behavior = behavior_named(*name);
  if (!behavior)
    return at.refuse(errc::invalid_argument,
                     "behavior must be Removed, Isolated, MergedWithPrevious, MergedWithNext or "
                     "Contiguous");
  const auto invert = at.flag("invert", false);
  if (!invert)
    return fail(invert.error());
  return std::make_unique<pattern_split>(std::move(*delimiter), *behavior, *invert);
}

} // namespace troupe::engine::text
