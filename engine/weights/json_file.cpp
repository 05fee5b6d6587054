#include "engine/weights/json_file.hpp"

#include "engine/weights/mapped_file.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

namespace troupe::engine {

namespace {

/// The deepest nesting of brackets outside of strings.
int depth_of(std::string_view text) {
  int depth = 0;
  int deepest = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted && c == '\\')
      ++i;
    else if (c == '"')
      quoted = !quoted;
    else if (!quoted && (c == '{' || c == '['))
      deepest = std::max(deepest, ++depth);
    else if (!quoted && (c == '}' || c == ']'))
      --depth;
  }
  return deepest;
}

} // namespace

result<nlohmann::json> parse_json_object(std::string_view text, std::string_view name,
                                         json_limits limits) {
  if (text.size() > limits.bytes)
    return fail(errc::corrupt_data,
                fmt::format("{}: {} bytes; at most {} are read", name, text.size(), limits.bytes));
  if (depth_of(text) > limits.depth)
    return fail(errc::corrupt_data,
                fmt::format("{}: is nested deeper than {}", name, limits.depth));
  try {
    auto parsed = nlohmann::json::parse(text.begin(), text.end());
    if (!parsed.is_object())
      return fail(errc::corrupt_data, fmt::format("{}: is not a JSON object", name));
    return parsed;
  } catch (const nlohmann::json::exception& e) {
    return fail(errc::corrupt_data, fmt::format("{}: is not JSON: {}", name, e.what()));
  }
}

result<nlohmann::json> read_json_object(const std::filesystem::path& path, json_limits limits) {
  auto mapped = mapped_file::open(path);
  if (!mapped)
    return fail(mapped.error());
  const auto text = mapped->text(limits.bytes + 1);
  if (!text)
    return fail(text.error());
  return parse_json_object(*text, path.string(), limits);
}

} // namespace troupe::engine
