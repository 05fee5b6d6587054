#include <fmt/format.h>

#include "engine/text/jinja/ops.hpp"
#include "engine/text/jinja/utf8.hpp"

namespace troupe::engine::jinja {

namespace {

const value* named(const arguments& args, std::string_view name) {
  for (const auto& [key, item] : args.named)
    if (key == name)
      return &item;
  return nullptr;
}

/// The arguments from position `from` on, for the filter or test that they name.
arguments rest_of(const arguments& args, std::size_t from) {
  arguments out;
  for (std::size_t i = from; i < args.positional.size(); ++i)
    out.positional.push_back(args.positional[i]);
  out.named = args.named;
  return out;
}

result<value> generator(runtime& rt, std::vector<value> items, std::string_view name) {
  return make_list(rt.budget, std::move(items), sequence_kind::generator,
                   fmt::format("<generator object {}>", name));
}

/// What map, select and reject go over: whatever counts as false has no items.
result<list_ptr> items_of(const call_site& c) {
  return iterate(c.rt, truthy(c.self) ? c.self : value{});
}

result<value> map_attribute(const call_site& c, const std::vector<value>& items) {
  const auto* path = named(c.raw, "attribute");
  const auto* otherwise = named(c.raw, "default");
  std::vector<value> out;
  for (const auto& item : items) {
    auto found = get_path(c.rt, item, *path);
    if (!found)
      return found;
    out.push_back(found->is_undefined() && otherwise ? *otherwise : std::move(*found));
  }
  return generator(c.rt, std::move(out), "sync_do_map");
}

result<value> map(const call_site& c) {
  auto items = items_of(c);
  if (!items)
    return fail(items.error());
  if (c.raw.positional.empty() && named(c.raw, "attribute"))
    return map_attribute(c, (*items)->items);
  const auto* name = c.raw.positional.empty() ? nullptr : c.raw.positional[0].text();
  if (!name)
    return wrong("map needs the name of a filter or attribute=...");
  const auto* row = find_filter(*name);
  if (!row)
    return fail(errc::unsupported, fmt::format("no filter named '{}'", *name));
  const auto rest = rest_of(c.raw, 1);
  std::vector<value> out;
  for (const auto& item : (*items)->items) {
    auto made = invoke(c.rt, *row, item, rest);
    if (!made)
      return made;
    out.push_back(std::move(*made));
  }
  return generator(c.rt, std::move(out), "sync_do_map");
}

/// Keeps the items whose test comes out as `Keep`; of their attribute where `ByAttribute`.
template <bool Keep, bool ByAttribute>
result<value> pick(const call_site& c) {
  auto items = items_of(c);
  if (!items)
    return fail(items.error());
  const auto& given = c.raw.positional;
  const std::size_t at = ByAttribute ? 1 : 0;
  if (ByAttribute && given.empty())
    return wrong("the name of an attribute is missing");
  const builtin* row = nullptr;
  if (given.size() > at) {
    const auto* name = given[at].text();
    row = name ? find_test(*name) : nullptr;
    if (!row)
      return fail(errc::unsupported, fmt::format("no test named '{}'", name ? *name : "?"));
  }
  const auto rest = rest_of(c.raw, at + 1);
  std::vector<value> out;
  for (const auto& item : (*items)->items) {
    auto subject = ByAttribute ? get_path(c.rt, item, given[0]) : result<value>(item);
    if (subject && row)
      subject = invoke(c.rt, *row, *subject, rest);
    if (!subject)
      return subject;
    if (truthy(*subject) == Keep)
      out.push_back(item);
  }
  return generator(c.rt, std::move(out), "select_or_reject");
}

result<value> attribute(const call_site& c) {
  auto name = c.text(0, "");
  if (!name)
    return fail(name.error());
  if (c.self.dict() && !find_method(c.self, *name))
    return make_undefined(fmt::format("dict has no attribute '{}'", *name));
  return get_attribute(c.rt, c.self, *name);
}

/// The groups found so far: the keys as compared, and the items as they came.
struct groups {
  std::vector<value> keys, compared;
  std::vector<std::vector<value>> members;
};

result<void> add_to_group(const call_site& c, groups& g, const value& item) {
  auto key = get_path(c.rt, item, *c.args[0]);
  if (!key)
    return fail(key.error());
  if (key->is_undefined() && c.args[1])
    key = *c.args[1];
  const bool fold = key->text() && !c.flag(2, false);
  auto compared = fold ? make_text(c.rt.budget, lower(*key->text())) : key;
  if (!compared)
    return fail(compared.error());
  for (std::size_t i = 0; i < g.compared.size(); ++i) {
    auto same = equals(c.rt, g.compared[i], *compared);
    if (!same)
      return fail(same.error());
    if (!*same)
      continue;
    g.members[i].push_back(item);
    return {};
  }
  g.keys.push_back(std::move(*key));
  g.compared.push_back(std::move(*compared));
  g.members.push_back({item});
  return {};
}

result<value> group_by(const call_site& c) {
  auto items = iterate(c.rt, c.self);
  if (!items)
    return fail(items.error());
  groups g;
  for (const auto& item : (*items)->items)
    if (auto ok = add_to_group(c, g, item); !ok)
      return fail(ok.error());
  std::vector<value> out;
  for (std::size_t i = 0; i < g.keys.size(); ++i) {
    auto members = make_list(c.rt.budget, std::move(g.members[i]));
    if (!members)
      return members;
    auto group = make_list(c.rt.budget, {g.keys[i], std::move(*members)}, sequence_kind::group);
    if (!group)
      return group;
    out.push_back(std::move(*group));
  }
  auto ordered = sorted(c.rt, out, g.compared, false);
  return ordered ? make_list(c.rt.budget, std::move(*ordered))
                 : result<value>(fail(ordered.error()));
}

constexpr builtin rows[] = {
    {"attr", "name", 1, attribute},
    {"groupby", "attribute default case_sensitive", 1, group_by},
    {"map", "*", 0, map},
    {"reject", "*", 0, pick<false, false>},
    {"rejectattr", "*", 0, pick<false, true>},
    {"select", "*", 0, pick<true, false>},
    {"selectattr", "*", 0, pick<true, true>},
};

} // namespace

std::span<const builtin> pick_filters() { return rows; }

} // namespace troupe::engine::jinja
