#include <algorithm>

#include <fmt/format.h>

#include "engine/text/jinja/loop.hpp"
#include "engine/text/jinja/ops.hpp"
#include "engine/text/jinja/utf8.hpp"

namespace troupe::engine::jinja {

namespace {

value no_attribute(const value& v, std::string_view name) {
  return make_undefined(fmt::format("{} has no attribute '{}'", type_name(v), name));
}

result<value> bound_method(runtime& rt, const value& v, const builtin& row) {
  if (auto ok = rt.budget.spend(1); !ok)
    return fail(ok.error());
  return value{std::make_shared<const method_node>(method_node{v, &row})};
}

/// Python's reading of an index: negative ones count from the end.
std::optional<std::size_t> index_in(std::size_t size, std::int64_t index) {
  const auto n = static_cast<std::int64_t>(size);
  if (index < 0)
    index += n;
  if (index < 0 || index >= n)
    return std::nullopt;
  return static_cast<std::size_t>(index);
}

/// The character at `index`, or undefined.
result<value> character(runtime& rt, const std::string& text, std::int64_t index) {
  if (auto ok = rt.budget.spend(text.size() / 64); !ok)
    return fail(ok.error());
  const auto at = index_in(index < 0 ? count_characters(text) : text.size(), index);
  const std::size_t byte = at ? byte_of(text, *at) : text.size();
  if (byte >= text.size())
    return make_undefined(fmt::format("the text has no character {}", index));
  return make_text(rt.budget, text.substr(byte, decode(text, byte).bytes));
}

/// What `key` finds inside `v`; null where nothing.
result<std::optional<value>> lookup(runtime& rt, const value& v, const value& key) {
  if (const auto* d = v.dict()) {
    if (auto ok = rt.budget.spend(1 + d->entries.size() / 16); !ok)
      return fail(ok.error());
    const auto* found = hashable(key) ? d->find(key) : nullptr;
    return found ? std::optional<value>(*found) : std::nullopt;
  }
  std::int64_t i = 0;
  if (!as_integer(key, i))
    return std::optional<value>();
  if (const auto* text = v.text()) {
    auto c = character(rt, *text, i);
    if (!c)
      return fail(c.error());
    return std::optional<value>(std::move(*c));
  }
  const auto* l = v.list();
  if (!l || l->kind == sequence_kind::view || l->kind == sequence_kind::generator)
    return std::optional<value>();
  const auto at = index_in(l->items.size(), i);
  return at ? std::optional<value>(l->items[*at]) : std::nullopt;
}

/// Start, stop and step of a slice over `size` items, clamped as Python clamps them.
struct slice_range {
  std::int64_t start, stop, step;

  [[nodiscard]] bool goes_on(std::int64_t i) const { return step > 0 ? i < stop : i > stop; }
};

result<slice_range> clamp_slice(const std::array<value, 3>& bounds, std::size_t size) {
  std::array<std::optional<std::int64_t>, 3> given;
  for (std::size_t i = 0; i < 3; ++i) {
    std::int64_t n = 0;
    if (as_integer(bounds[i], n))
      given[i] = n;
    else if (!bounds[i].is_none())
      return wrong(fmt::format("a slice needs integers, not {}", type_name(bounds[i])));
  }
  const auto n = static_cast<std::int64_t>(size);
  // No slice steps further than the whole size, and the negative of the step must exist.
  const auto step = std::clamp(given[2].value_or(1), -n - 1, n + 1);
  if (given[2] == 0)
    return wrong("the step of a slice is zero");
  const auto low = step < 0 ? std::int64_t{-1} : std::int64_t{0};
  const auto high = step < 0 ? n - 1 : n;
  const auto place = [&](const std::optional<std::int64_t>& at, std::int64_t otherwise) {
    return at ? std::clamp(*at < 0 ? *at + n : *at, low, high) : otherwise;
  };
  return slice_range{place(given[0], step < 0 ? high : low), place(given[1], step < 0 ? low : high),
                     step};
}

result<value> slice_text(runtime& rt, const std::string& text, const std::array<value, 3>& bounds) {
  if (auto ok = rt.budget.spend(1 + text.size() / 64); !ok)
    return fail(ok.error());
  const auto size = count_characters(text);
  auto range = clamp_slice(bounds, size);
  if (!range)
    return fail(range.error());
  if (range->step == 1) {
    const auto from = byte_of(text, static_cast<std::size_t>(range->start));
    const auto rest = std::string_view(text).substr(from);
    const auto count = std::max<std::int64_t>(0, range->stop - range->start);
    const auto bytes = byte_of(rest, static_cast<std::size_t>(count));
    return make_text(rt.budget, std::string(rest.substr(0, bytes)));
  }
  std::vector<std::string_view> characters;
  characters.reserve(size);
  for (std::string_view rest = text; !rest.empty(); rest.remove_prefix(characters.back().size()))
    characters.push_back(rest.substr(0, decode(rest, 0).bytes));
  std::string out;
  for (auto i = range->start; range->goes_on(i); i += range->step)
    out += characters[static_cast<std::size_t>(i)];
  return make_text(rt.budget, std::move(out));
}

} // namespace

result<value> get_attribute(runtime& rt, const value& v, std::string_view name) {
  if (v.is_undefined())
    return undefined_error(v);
  if (const auto* o = v.obj()) {
    const auto* ns =
        o->kind == object_kind::name_space ? static_cast<const name_space*>(o) : nullptr;
    if (const auto* field = ns ? ns->find(name) : nullptr)
      return *field;
    if (o->kind == object_kind::loop)
      return static_cast<const loop_state*>(o)->attribute(rt, v, name);
    if (o->kind == object_kind::cycler && name == "current") {
      const auto& c = static_cast<const turn_taker&>(*o);
      return c.items[c.turn];
    }
  }
  if (const auto* row = find_method(v, name))
    return bound_method(rt, v, *row);
  if (const auto* d = v.dict())
    if (const auto* item = d->find(name))
      return *item;
  const auto* l = v.list();
  if (l && l->kind == sequence_kind::group && l->items.size() == 2) {
    if (name == "grouper")
      return l->items[0];
    if (name == "list")
      return l->items[1];
  }
  return no_attribute(v, name);
}

result<value> get_item(runtime& rt, const value& v, const value& key) {
  if (v.is_undefined())
    return undefined_error(v);
  auto found = lookup(rt, v, key);
  if (!found)
    return fail(found.error());
  if (*found)
    return std::move(**found);
  if (const auto* name = key.text())
    return get_attribute(rt, v, *name);
  auto shown = repr(rt, key);
  if (!shown)
    return fail(shown.error());
  return make_undefined(fmt::format("{} has no element {}", type_name(v), *shown));
}

result<value> slice(runtime& rt, const value& v, const std::array<value, 3>& bounds) {
  if (v.is_undefined())
    return undefined_error(v);
  const auto* text = v.text();
  const auto* l = v.list();
  const bool indexable = l && l->kind != sequence_kind::view && l->kind != sequence_kind::generator;
  if (!text && !indexable)
    return wrong(fmt::format("{} cannot be sliced", type_name(v)));
  if (text)
    return slice_text(rt, *text, bounds);
  const auto& items = l->items;
  auto range = clamp_slice(bounds, items.size());
  if (!range)
    return fail(range.error());
  std::vector<value> out;
  for (auto i = range->start; range->goes_on(i); i += range->step)
    out.push_back(items[static_cast<std::size_t>(i)]);
  const bool tuple = l->kind == sequence_kind::tuple || l->kind == sequence_kind::group;
  return make_list(rt.budget, std::move(out), tuple ? sequence_kind::tuple : sequence_kind::list);
}

result<list_ptr> iterate(runtime& rt, const value& v) {
  if (const auto* l = v.get<list_ptr>())
    return *l;
  std::vector<value> items;
  if (const auto* d = v.dict()) {
    for (const auto& entry : d->entries)
      items.push_back(entry.first);
  } else if (const auto* text = v.text()) {
    for (std::size_t at = 0; at < text->size();) {
      const auto bytes = decode(*text, at).bytes;
      auto c = make_text(rt.budget, text->substr(at, bytes));
      if (auto ok = rt.budget.spend(1); !c || !ok)
        return fail(c ? ok.error() : c.error());
      items.push_back(std::move(*c));
      at += bytes;
    }
  } else if (!v.is_undefined()) {
    return wrong(fmt::format("{} cannot be looped over", type_name(v)));
  }
  auto made = make_list(rt.budget, std::move(items));
  if (!made)
    return fail(made.error());
  return std::get<list_ptr>(made->data);
}

result<std::size_t> length(const value& v) {
  if (const auto* text = v.text())
    return count_characters(*text);
  if (const auto* l = v.list(); l && l->kind != sequence_kind::generator)
    return l->items.size();
  if (const auto* d = v.dict())
    return d->entries.size();
  if (v.is_undefined())
    return std::size_t{0};
  return wrong(fmt::format("{} has no length", type_name(v)));
}

result<value> get_path(runtime& rt, const value& v, const value& path) {
  const auto* text = path.text();
  if (!text)
    return get_item(rt, v, path);
  value at = v;
  for (std::string_view rest = *text;;) {
    const auto dot = rest.find('.');
    const auto part = rest.substr(0, dot);
    const bool number = !part.empty() && part.size() < 10 &&
                        std::all_of(part.begin(), part.end(), [](char c) { return is_digit(c); });
    auto next = get_item(
        rt, at, number ? make_int(std::stoll(std::string(part))) : make_literal(std::string(part)));
    if (!next)
      return next;
    at = std::move(*next);
    if (dot == rest.npos)
      return at;
    rest = rest.substr(dot + 1);
  }
}

} // namespace troupe::engine::jinja
