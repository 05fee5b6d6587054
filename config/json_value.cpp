#include <fmt/core.h>

#include "config/json_tree.hpp"

namespace troupe::config {

namespace {

constexpr std::size_t longest_text = 200;

void append_string(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\')
      out += '\\';
    if (static_cast<unsigned char>(c) < 0x20)
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    else
      out += c;
  }
  out += '"';
}

/// Recursion is bounded by the parser's depth limit; what begins behind `most` bytes is left out.
void append(std::string& out, const json_value& value, std::size_t most = std::string::npos) {
  if (out.size() > most)
    return;
  std::string_view comma;
  switch (value.kind) {
  case json_kind::null:
    out += "null";
    return;
  case json_kind::boolean:
    out += value.truth ? "true" : "false";
    return;
  case json_kind::integer:
  case json_kind::real:
    out += value.text;
    return;
  case json_kind::string:
    append_string(out, value.text);
    return;
  case json_kind::array:
    out += '[';
    for (const auto& item : value.items) {
      out += std::exchange(comma, ", ");
      append(out, item, most);
    }
    out += ']';
    return;
  case json_kind::object:
    out += '{';
    for (const auto& member : value.members) {
      out += std::exchange(comma, ", ");
      append_string(out, member.key);
      out += ": ";
      append(out, member.value, most);
    }
    out += '}';
    return;
  }
}

} // namespace

origin json_value::from() const {
  return source ? origin{source->kind, source->file, line, source->text} : origin{};
}

const json_value* json_value::find(std::string_view key) const {
  for (const auto& m : members) {
    if (m.key == key)
      return &m.value;
  }
  return nullptr;
}

json_value* json_value::find(std::string_view key) {
  return const_cast<json_value*>(std::as_const(*this).find(key));
}

bool same_value(const json_value& a, const json_value& b) {
  if (a.kind != b.kind || a.truth != b.truth || a.text != b.text ||
      a.items.size() != b.items.size() || a.members.size() != b.members.size())
    return false;
  for (std::size_t i = 0; i < a.items.size(); ++i) {
    if (!same_value(a.items[i], b.items[i]))
      return false;
  }
  for (const auto& m : a.members) {
    const auto* other = b.find(m.key);
    if (other == nullptr || !same_value(m.value, *other))
      return false;
  }
  return true;
}

std::string to_json_text(const json_value& value) {
  std::string out;
  append(out, value);
  return out;
}

std::string json_quoted(std::string_view text) {
  std::string out;
  append_string(out, text);
  return out;
}

std::string to_text(const json_value& value) {
  std::string out;
  append(out, value, longest_text);
  if (out.size() > longest_text) {
    out.resize(longest_text);
    while (!out.empty() && (static_cast<unsigned char>(out.back()) & 0xC0U) == 0x80U)
      out.pop_back();
    if (!out.empty() && static_cast<unsigned char>(out.back()) >= 0xC0U)
      out.pop_back();
    out += "...";
  }
  return out;
}

std::string_view kind_name(json_kind kind) {
  switch (kind) {
  case json_kind::null:
    return "null";
  case json_kind::boolean:
    return "true or false";
  case json_kind::integer:
    return "an integer";
  case json_kind::real:
    return "a number";
  case json_kind::string:
    return "a string";
  case json_kind::array:
    return "a list";
  case json_kind::object:
    return "an object";
  }
  return "a value";
}

} // namespace troupe::config
