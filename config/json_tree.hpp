#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/sink.hpp"
#include "troupe/config/origin.hpp"

namespace troupe::config {

enum class json_kind : std::uint8_t { null, boolean, integer, real, string, array, object };

/// What all values of one text have in common.
struct json_source {
  origin_kind kind = origin_kind::user_file;
  std::string file;
  /// The variable's name or the `--set` text.
  std::string text;
};

struct json_member;

/// A JSON value that knows its line.
struct json_value {
  json_kind kind = json_kind::null;
  bool truth = false;
  std::uint32_t line = 0;
  /// Of integer and real, rounded to double.
  double number = 0;
  /// The string, or the digits of an integer or real as they were written.
  std::string text;
  std::vector<json_value> items;
  std::vector<json_member> members;
  std::shared_ptr<const json_source> source;

  [[nodiscard]] origin from() const;
  /// The member's value, or null. @cost linear
  [[nodiscard]] const json_value* find(std::string_view key) const;
  [[nodiscard]] json_value* find(std::string_view key);
};

struct json_member {
  std::string key;
  std::uint32_t line = 0;
  json_value value;
};

/// Equal as JSON values; 1 and 1.0 differ, as they do for a field that wants an integer.
[[nodiscard]] bool same_value(const json_value& a, const json_value& b);
/// As JSON on one line, for messages and explain.
[[nodiscard]] std::string to_text(const json_value& value);
/// The same in full, for whoever parses it again; and a JSON string.
[[nodiscard]] std::string to_json_text(const json_value& value);
[[nodiscard]] std::string json_quoted(std::string_view text);
/// "a string", "an object", ... for messages.
[[nodiscard]] std::string_view kind_name(json_kind kind);

struct json_limits {
  std::size_t bytes = 1U << 20U;
  std::uint32_t depth = 32;
  std::uint32_t values = 50'000;
};

/// Parses strict JSON: no comments, no NaN, no duplicate keys (all are reported, with both lines).
/// Every mistake goes to `sink` with its line; empty after a syntax error or an exceeded limit.
[[nodiscard]] std::optional<json_value> parse_json(std::string_view text,
                                                   std::shared_ptr<const json_source> source,
                                                   diagnostic_sink& sink,
                                                   const json_limits& limits = {});

} // namespace troupe::config
