#include "engine/text/jinja/json.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "engine/text/jinja/utf8.hpp"

namespace troupe::engine::jinja {

namespace {

std::string escape_json(std::string_view text, bool ascii) {
  static constexpr std::string_view specials = "\"\\\n\r\t\b\f", letters = "\"\\nrtbf";
  std::string out = "\"";
  for (std::size_t at = 0; at < text.size();) {
    const auto c = decode(text, at);
    const auto special = c.value < 0x80 ? specials.find(static_cast<char>(c.value)) : specials.npos;
    if (special != specials.npos)
      (out += '\\') += letters[special];
    else if (c.value < 0x20 || (ascii && c.value >= 0x7f && c.value < 0x10000))
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c.value));
    else if (ascii && c.value >= 0x10000)
      out += fmt::format("\\u{:04x}\\u{:04x}",
                         static_cast<unsigned>(0xd800 + ((c.value - 0x10000) >> 10)),
                         static_cast<unsigned>(0xdc00 + (c.value & 0x3ff)));
    else
      out += text.substr(at, c.bytes);
    at += c.bytes;
  }
  return out += '"';
}

std::string json_float(double d) {
  if (std::isnan(d))
    return "NaN";
  if (std::isinf(d))
    return d > 0 ? "Infinity" : "-Infinity";
  return float_text(d);
}

class writer {
public:
  writer(runtime& rt, const json_style& style) : rt_(rt), style_(style) {}

  result<void> write(const value& v) {
    if (auto ok = rt_.budget.spend(1); !ok)
      return ok;
    if (const auto* t = v.text())
      return append(rt_, out, escape_json(*t, style_.ascii));
    const auto* l = v.list();
    const bool sequence = l && (l->kind == sequence_kind::list || l->kind == sequence_kind::tuple ||
                                l->kind == sequence_kind::group);
    if (sequence)
      return write_list(*l);
    if (const auto* d = v.dict())
      return write_dict(*d);
    if (!v.is_none() && !v.is<bool>() && !v.is<std::int64_t>() && !v.is<double>())
      return wrong(fmt::format("a value of type {} has no form in JSON", type_name(v)));
    return append(rt_, out, scalar(v));
  }

  std::string out;

private:
  static std::string scalar(const value& v) {
    if (const auto* b = v.get<bool>())
      return *b ? "true" : "false";
    if (const auto* i = v.get<std::int64_t>())
      return fmt::format("{}", *i);
    if (const auto* d = v.get<double>())
      return json_float(*d);
    return "null";
  }

  result<void> new_line() {
    if (!style_.lines)
      return {};
    if (auto ok = append(rt_, out, "\n"); !ok)
      return ok;
    for (std::size_t i = 0; i < level_; ++i)
      if (auto ok = append(rt_, out, style_.indent); !ok)
        return ok;
    return {};
  }

  result<void> separate(bool first) {
    if (!first)
      if (auto ok = append(rt_, out, style_.item_separator); !ok)
        return ok;
    return new_line();
  }

  result<void> close(bool empty, std::string_view bracket) {
    --level_;
    if (!empty)
      if (auto ok = new_line(); !ok)
        return ok;
    return append(rt_, out, bracket);
  }

  result<void> write_list(const list_node& l) {
    out += '[';
    ++level_;
    for (std::size_t i = 0; i < l.items.size(); ++i) {
      if (auto ok = separate(i == 0); !ok)
        return ok;
      if (auto ok = write(l.items[i]); !ok)
        return ok;
    }
    return close(l.items.empty(), "]");
  }

  result<void> write_dict(const dict_node& d) {
    std::vector<value> keys, items;
    for (const auto& [key, item] : d.entries) {
      keys.push_back(key);
      items.push_back(make_list_entry(key, item));
    }
    if (style_.sort_keys) {
      auto order = sorted(rt_, items, keys, false);
      if (!order)
        return fail(order.error());
      items = std::move(*order);
    }
    out += '{';
    ++level_;
    for (std::size_t i = 0; i < items.size(); ++i) {
      const auto& entry = items[i].list()->items;
      if (auto ok = separate(i == 0); !ok)
        return ok;
      const auto* name = entry[0].text();
      const std::string key = escape_json(name ? *name : scalar(entry[0]), style_.ascii);
      if (auto ok = append(rt_, out, key + style_.key_separator); !ok)
        return ok;
      if (auto ok = write(entry[1]); !ok)
        return ok;
    }
    return close(items.empty(), "}");
  }

  static value make_list_entry(const value& key, const value& item) {
    return {std::make_shared<const list_node>(std::vector<value>{key, item}, sequence_kind::tuple,
                                              std::string(), nullptr)};
  }

  runtime& rt_;
  const json_style& style_;
  std::size_t level_ = 0;
};

result<value> convert(runtime& rt, const nlohmann::ordered_json& j, std::uint32_t depth);

result<value> convert_container(runtime& rt, const nlohmann::ordered_json& j, std::uint32_t depth) {
  if (depth >= rt.budget.bounds().value_depth_max)
    return fail(errc::limit_exceeded, "the input is nested deeper than allowed");
  std::vector<value> items;
  std::vector<std::pair<value, value>> entries;
  for (auto it = j.begin(); it != j.end(); ++it) {
    auto item = convert(rt, *it, depth + 1);
    if (!item)
      return item;
    if (j.is_array()) {
      items.push_back(std::move(*item));
      continue;
    }
    auto key = make_text(rt.budget, it.key());
    if (!key)
      return key;
    entries.emplace_back(std::move(*key), std::move(*item));
  }
  return j.is_array() ? make_list(rt.budget, std::move(items))
                      : make_dict(rt.budget, std::move(entries));
}

result<value> convert(runtime& rt, const nlohmann::ordered_json& j, std::uint32_t depth) {
  using kind = nlohmann::ordered_json::value_t;
  switch (j.type()) {
  case kind::boolean:
    return make_bool(j.get<bool>());
  case kind::number_integer:
    return make_int(j.get<std::int64_t>());
  case kind::number_unsigned: {
    const auto n = j.get<std::uint64_t>();
    const bool fits = n <= static_cast<std::uint64_t>(INT64_MAX);
    return fits ? make_int(static_cast<std::int64_t>(n)) : value{static_cast<double>(n)};
  }
  case kind::number_float:
    return value{j.get<double>()};
  case kind::string:
    return make_text(rt.budget, j.get_ref<const std::string&>());
  case kind::array:
  case kind::object:
    return convert_container(rt, j, depth);
  default:
    return make_none();
  }
}

} // namespace

result<value> from_json(runtime& rt, const nlohmann::ordered_json& j) { return convert(rt, j, 0); }

result<std::string> dump_json(runtime& rt, const value& v, const json_style& style) {
  writer w(rt, style);
  if (auto ok = w.write(v); !ok)
    return fail(ok.error());
  return std::move(w.out);
}

} // namespace troupe::engine::jinja
