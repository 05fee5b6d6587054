#include "actors/edge/json_body.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>

namespace troupe::actors {

namespace {

using nlohmann::json;

constexpr int max_depth = 64;

/// The deepest nesting of brackets outside strings; stops counting beyond `max_depth`.
bool too_deep(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        in_string = false;
      continue;
    }
    in_string = c == '"';
    if ((c == '[' || c == '{') && ++depth > max_depth)
      return true;
    if (c == ']' || c == '}')
      --depth;
  }
  return false;
}

std::string place_of(std::string_view text, std::size_t byte) {
  const auto before = text.substr(0, std::min(byte == 0 ? 0 : byte - 1, text.size()));
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const auto start = before.rfind('\n');
  const auto column = start == std::string_view::npos ? before.size() + 1 : before.size() - start;
  return fmt::format("line {}, column {}", line, column);
}

/// The library's words without its error number and position.
std::string reason_of(std::string_view what) {
  const auto bracket = what.find("] ");
  if (bracket != std::string_view::npos)
    what.remove_prefix(bracket + 2);
  const auto colon = what.find(": ");
  if (what.substr(0, 11) == "parse error" && colon != std::string_view::npos)
    what.remove_prefix(colon + 2);
  return std::string{what.substr(0, 200)};
}

std::string shown(const json& v) {
  auto text = v.dump(-1, ' ', false, json::error_handler_t::replace);
  if (text.size() > 60)
    text = text.substr(0, 57) + "...";
  return text;
}

tl::unexpected<api_error> wrong_type(const json& v, std::string_view name, const char* wanted) {
  return refuse(std::string{name}, fmt::format("'{}' must be {}, got {}", name, wanted, shown(v)),
                "invalid_type");
}

} // namespace

checked<json> parse_body(std::string_view body) {
  if (body.empty())
    return refuse("", "The body is empty; send a JSON object", "invalid_json");
  if (too_deep(body))
    return refuse("", fmt::format("The body is nested deeper than {} levels", max_depth),
                  "invalid_json");
  try {
    auto root = json::parse(body.begin(), body.end());
    if (!root.is_object())
      return refuse("", "The body must be a JSON object", "invalid_json");
    return root;
  } catch (const json::parse_error& e) {
    return refuse("",
                  fmt::format("The body is not valid JSON at {}: {}", place_of(body, e.byte),
                              reason_of(e.what())),
                  "invalid_json");
  } catch (const std::exception& e) {
    return refuse("", fmt::format("The body is not valid JSON: {}", reason_of(e.what())),
                  "invalid_json");
  }
}

checked<bool> as_bool(const json& v, std::string_view name) {
  if (!v.is_boolean())
    return wrong_type(v, name, "true or false");
  return v.get<bool>();
}

checked<std::string> as_text(const json& v, std::string_view name) {
  if (!v.is_string())
    return wrong_type(v, name, "a string");
  return v.get<std::string>();
}

checked<std::int64_t> as_integer(const json& v, std::string_view name, integer_range range) {
  if (!v.is_number_integer())
    return wrong_type(v, name, "an integer");
  const bool huge =
      v.is_number_unsigned() && v.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX);
  const auto number = huge ? INT64_MAX : v.get<std::int64_t>();
  if (huge || number < range.least || number > range.most)
    return refuse(std::string{name}, fmt::format("'{}' must be between {} and {}, got {}", name,
                                                 range.least, range.most, shown(v)));
  return number;
}

checked<double> as_number(const json& v, std::string_view name, number_range range) {
  if (!v.is_number())
    return wrong_type(v, name, "a number");
  const auto number = v.get<double>();
  const bool low = range.without_least ? number <= range.least : number < range.least;
  if (!std::isfinite(number) || low || number > range.most)
    return refuse(std::string{name}, fmt::format("'{}' must be {} {} and at most {}, got {}", name,
                                                 range.without_least ? "above" : "at least",
                                                 range.least, range.most, shown(v)));
  return number;
}

} // namespace troupe::actors
