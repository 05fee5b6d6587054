#include "engine/text/models/merge_table.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <bit>
#include <string>
#include <string_view>
#include <utility>

namespace troupe::engine::text {

namespace {

using pair_of_texts = std::pair<std::string_view, std::string_view>;

/// The two sides of a merge, or nothing where the element has neither of the two forms.
std::optional<pair_of_texts> sides_of(const nlohmann::json& element) {
  if (element.is_string()) {
    const std::string_view text = element.get_ref<const std::string&>();
    const auto space = text.find(' ');
    if (space == text.npos || text.find(' ', space + 1) != text.npos)
      return std::nullopt;
    return pair_of_texts{text.substr(0, space), text.substr(space + 1)};
  }
  if (!element.is_array() || element.size() != 2 || !element[0].is_string() ||
      !element[1].is_string())
    return std::nullopt;
  return pair_of_texts{element[0].get_ref<const std::string&>(),
                       element[1].get_ref<const std::string&>()};
}

bool is_header(const nlohmann::json& element) {
  return element.is_string() && element.get_ref<const std::string&>().starts_with("#version");
}

} // namespace

result<merge_table> merge_table::load(const json_view& at, const vocabulary& tokens) {
  if (!at.value().is_array())
    return at.expected("an array of merges");
  const auto& elements = at.value().get_ref<const nlohmann::json::array_t&>();
  merge_table made;
  made.slots_.resize(std::bit_ceil(2 * elements.size() + 1));
  std::string joined;
  std::uint32_t rank = 0;
  for (std::size_t i = 0; i < elements.size(); ++i) {
    if (is_header(elements[i]))
      continue;
    const auto sides = sides_of(elements[i]);
    if (!sides)
      return at.refuse(errc::invalid_argument,
                       fmt::format("element {} must be \"a b\" or [\"a\", \"b\"]", i));
    joined.assign(sides->first).append(sides->second);
    const auto left = tokens.find(sides->first);
    const auto right = tokens.find(sides->second);
    const auto merged = tokens.find(joined);
    if (!left || !right || !merged) {
      const std::string_view unknown = !left ? sides->first : !right ? sides->second : joined;
      return at.refuse(
          errc::invalid_argument,
          fmt::format("element {} names \"{}\", which is not in the vocabulary", i, unknown));
    }
    made.insert(*left, *right, {rank++, *merged});
  }
  return made;
}

void merge_table::insert(token_id left, token_id right, merge_rule rule) {
  const std::uint64_t key = key_of(left, right);
  std::size_t slot = slot_of(key);
  while (slots_[slot].rule.merged >= 0 && slots_[slot].key != key)
    slot = (slot + 1) & (slots_.size() - 1);
  slots_[slot] = {key, rule};
}

} // namespace troupe::engine::text
