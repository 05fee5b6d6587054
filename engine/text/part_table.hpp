#pragma once

#include "engine/text/json_view.hpp"
#include "troupe/base/error.hpp"

#include <fmt/format.h>

#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace troupe::engine::text {

/// One row of a folder's table: the "type" of a part in tokenizer.json and what builds it.
template <class Part>
struct part_row {
  std::string_view type;
  result<std::unique_ptr<Part>> (*make)(const json_view& at);
};

/// How deep parts may stand inside each other; sequences of sequences need two or three.
inline constexpr unsigned max_part_depth = 24;

/// Builds the part that stands at `at` by the row whose type it names.
/// @errors unsupported: no row has that type (the note names the ones that there are), or the parts
///         are nested deeper than max_part_depth; and whatever the row's factory returns
template <class Part>
[[nodiscard]] result<std::unique_ptr<Part>> make_part(const json_view& at, std::string_view kind,
                                                      std::span<const part_row<Part>> rows) {
  if (at.depth() > max_part_depth)
    return at.refuse(errc::unsupported, "parts are nested too deep");
  const auto type = at.text("type");
  if (!type)
    return fail(type.error());
  std::string known;
  for (const auto& row : rows) {
    if (row.type == *type)
      return row.make(at);
    known += known.empty() ? "" : ", ";
    known += row.type;
  }
  return at.refuse(errc::unsupported,
                   fmt::format("there is no {} \"{}\" here; there are {}", kind, *type, known));
}

} // namespace troupe::engine::text
