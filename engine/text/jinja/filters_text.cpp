#include <fmt/format.h>

#include "engine/text/jinja/json.hpp"
#include "engine/text/jinja/ops.hpp"
#include "engine/text/jinja/text_ops.hpp"
#include "engine/text/jinja/utf8.hpp"

namespace troupe::engine::jinja {

namespace {

using text_fn = std::string (*)(std::string_view);

/// A filter that maps the printed text of its subject.
template <text_fn F>
result<value> mapped(const call_site& c) {
  auto text = to_text(c.rt, c.self);
  return text ? make_text(c.rt.budget, F(*text)) : result<value>(fail(text.error()));
}

result<value> escaped(const call_site& c) {
  if (const auto* t = c.self.get<text_ptr>(); t && (*t)->markup)
    return c.self;
  auto text = to_text(c.rt, c.self);
  return text ? make_text(c.rt.budget, escape_html(*text), true)
              : result<value>(fail(text.error()));
}

result<value> force_escaped(const call_site& c) {
  auto text = to_text(c.rt, c.self);
  return text ? make_text(c.rt.budget, escape_html(*text), true)
              : result<value>(fail(text.error()));
}

result<value> safe(const call_site& c) {
  auto text = to_text(c.rt, c.self);
  return text ? make_text(c.rt.budget, std::move(*text), true) : result<value>(fail(text.error()));
}

result<value> string(const call_site& c) {
  if (c.self.text())
    return c.self;
  auto text = to_text(c.rt, c.self);
  return text ? make_text(c.rt.budget, std::move(*text)) : result<value>(fail(text.error()));
}

result<value> trim(const call_site& c) {
  auto text = to_text(c.rt, c.self);
  if (!text)
    return fail(text.error());
  if (!c.args[0] || c.args[0]->is_none())
    return make_text(c.rt.budget, std::string(strip_left(strip_right(*text))));
  auto characters = c.text(0, "");
  if (!characters)
    return fail(characters.error());
  return make_text(c.rt.budget, std::string(strip_set(*text, *characters, true, true)));
}

result<value> replace(const call_site& c) {
  auto text = to_text(c.rt, c.self);
  auto from = text ? to_text(c.rt, *c.args[0]) : text;
  auto to = from ? to_text(c.rt, *c.args[1]) : from;
  if (!to)
    return fail(to.error());
  const bool all = !c.args[2] || c.args[2]->is_none();
  auto count = all ? result<std::int64_t>(-1) : c.integer(2, -1);
  if (!count)
    return fail(count.error());
  return replace_text(c.rt, *text, {*from, *to, *count});
}

result<value> indent(const call_site& c) {
  const auto* text = c.self.text();
  if (!text)
    return wrong(fmt::format("indent needs a text, not {}", type_name(c.self)));
  auto width = c.args[0] && c.args[0]->text() ? result<std::int64_t>(0) : c.integer(0, 4);
  if (!width)
    return fail(width.error());
  if (*width > 10000)
    return fail(errc::limit_exceeded, "an indent is wider than allowed");
  const std::string pad =
      c.args[0] && c.args[0]->text()
          ? *c.args[0]->text()
          : std::string(static_cast<std::size_t>(std::max<std::int64_t>(0, *width)), ' ');
  const bool blank = c.flag(2, false);
  std::string out = c.flag(1, false) ? pad : "";
  std::string_view rest = *text;
  while (true) {
    const auto newline = rest.find('\n');
    if (auto ok = append(c.rt, out, rest.substr(0, newline)); !ok)
      return fail(ok.error());
    if (newline == rest.npos)
      return make_text(c.rt.budget, std::move(out));
    rest = rest.substr(newline + 1);
    const bool empty = rest.empty() || rest[0] == '\n';
    if (auto ok = append(c.rt, out, empty && !blank ? "\n" : "\n" + pad); !ok)
      return fail(ok.error());
  }
}

result<value> center(const call_site& c) {
  auto text = to_text(c.rt, c.self);
  auto width = c.integer(0, 80);
  if (!text || !width)
    return fail(text ? width.error() : text.error());
  const auto size = static_cast<std::int64_t>(count_characters(*text));
  if (*width <= size)
    return make_text(c.rt.budget, std::move(*text));
  if (auto ok = c.rt.budget.room(static_cast<std::size_t>(*width)); !ok)
    return fail(ok.error());
  const auto spare = *width - size;
  const auto left = spare / 2 + (spare & *width & 1);
  return make_text(c.rt.budget, std::string(static_cast<std::size_t>(left), ' ') + *text +
                                    std::string(static_cast<std::size_t>(spare - left), ' '));
}

result<value> truncate(const call_site& c) {
  auto text = to_text(c.rt, c.self);
  auto size = c.integer(0, 255);
  auto end = c.text(2, "...");
  auto leeway = c.args[3] && c.args[3]->is_none() ? result<std::int64_t>(5) : c.integer(3, 5);
  if (!text || !size || !end || !leeway)
    return fail(!text ? text.error() : !size ? size.error() : !end ? end.error() : leeway.error());
  const auto count = static_cast<std::int64_t>(count_characters(*text));
  const auto tail = static_cast<std::int64_t>(count_characters(*end));
  if (*size < tail || *leeway < 0)
    return wrong("truncate needs a length that has room for its end");
  if (count - *size <= *leeway)
    return make_text(c.rt.budget, std::move(*text));
  auto kept = text->substr(0, byte_of(*text, static_cast<std::size_t>(*size - tail)));
  if (!c.flag(1, false))
    kept = kept.substr(0, kept.rfind(' '));
  return make_text(c.rt.budget, kept + *end);
}

std::string url_quoted(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = byte < 0x80 && (is_alpha(byte) || is_digit(byte) ||
                                       std::string_view("_.-~/").find(c) != std::string_view::npos);
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", byte);
  }
  return out;
}

result<value> word_count(const call_site& c) {
  auto text = to_text(c.rt, c.self);
  if (!text)
    return fail(text.error());
  std::int64_t words = 0;
  bool inside = false;
  for (std::size_t at = 0; at < text->size();) {
    const auto ch = decode(*text, at);
    const bool word = ch.value == '_' || is_alpha(ch.value) || is_digit(ch.value);
    words += word && !inside;
    inside = word;
    at += ch.bytes;
  }
  return make_int(words);
}

result<value> format(const call_site& c) {
  auto form = to_text(c.rt, c.self);
  if (!form)
    return fail(form.error());
  if (!c.raw.named.empty() && !c.raw.positional.empty())
    return wrong("format takes positional or named arguments, not both");
  std::vector<std::pair<value, value>> entries;
  for (const auto& [name, item] : c.raw.named)
    entries.emplace_back(make_literal(name), item);
  auto args = entries.empty() ? make_list(c.rt.budget, c.raw.positional, sequence_kind::tuple)
                              : make_dict(c.rt.budget, std::move(entries));
  return args ? percent_format(c.rt, *form, *args) : args;
}

/// transformers' own: json.dumps(x, ensure_ascii, indent, separators, sort_keys).
result<value> to_json(const call_site& c) {
  json_style style;
  style.ascii = c.flag(0, false);
  if (c.args[1] && !c.args[1]->is_none()) {
    style.lines = true;
    style.item_separator = ",";
    if (const auto* pad = c.args[1]->text()) {
      style.indent = *pad;
    } else {
      auto width = c.integer(1, 0);
      if (!width)
        return fail(width.error());
      if (*width > 1000)
        return fail(errc::limit_exceeded, "an indent is wider than allowed");
      style.indent = std::string(static_cast<std::size_t>(std::max<std::int64_t>(0, *width)), ' ');
    }
  }
  if (c.args[2] && !c.args[2]->is_none()) {
    const auto* pair = c.args[2]->list();
    if (!pair || pair->items.size() != 2 || !pair->items[0].text() || !pair->items[1].text())
      return wrong("tojson needs its separators as a pair of texts");
    style.item_separator = *pair->items[0].text();
    style.key_separator = *pair->items[1].text();
  }
  style.sort_keys = c.flag(3, false);
  auto text = dump_json(c.rt, c.self, style);
  return text ? make_text(c.rt.budget, std::move(*text)) : result<value>(fail(text.error()));
}

constexpr builtin rows[] = {
    {"capitalize", "", 0, mapped<capitalized>},
    {"center", "width", 0, center},
    {"e", "", 0, escaped},
    {"escape", "", 0, escaped},
    {"forceescape", "", 0, force_escaped},
    {"format", "*", 0, format},
    {"indent", "width first blank", 0, indent},
    {"lower", "", 0, mapped<lower>},
    {"replace", "old new count", 2, replace},
    {"safe", "", 0, safe},
    {"string", "", 0, string},
    {"title", "", 0, mapped<title_filter>},
    {"tojson", "ensure_ascii indent separators sort_keys", 0, to_json},
    {"trim", "chars", 0, trim},
    {"truncate", "length killwords end leeway", 0, truncate},
    {"upper", "", 0, mapped<upper>},
    {"urlencode", "", 0, mapped<url_quoted>},
    {"wordcount", "", 0, word_count},
};

} // namespace

std::span<const builtin> text_filters() { return rows; }

} // namespace troupe::engine::jinja
