#pragma once

#include <nlohmann/json_fwd.hpp>

#include "engine/text/jinja/ops.hpp"

namespace troupe::engine::jinja {

/// The value of a JSON document, keys in their order. Integers beyond 64 bits become floats.
/// @errors limit_exceeded: depth or memory
[[nodiscard]] result<value> from_json(runtime& rt, const nlohmann::ordered_json& j);

struct json_style {
  bool ascii = false; ///< Writes other characters as \uXXXX.
  bool sort_keys = false;
  bool lines = false; ///< One item a line, indented by `indent` per level.
  std::string indent;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};

/// Python's json.dumps(). @errors invalid_argument: a value that JSON has no form for
[[nodiscard]] result<std::string> dump_json(runtime& rt, const value& v, const json_style& style);

} // namespace troupe::engine::jinja
