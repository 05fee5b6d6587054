#include <fmt/format.h>

#include "engine/text/jinja/loop.hpp"
#include "engine/text/jinja/ops.hpp"

namespace troupe::engine::jinja {

namespace {

result<value> index(const call_site& c) {
  const auto& items = c.self.list()->items;
  for (std::size_t i = 0; i < items.size(); ++i) {
    auto same = equals(c.rt, items[i], *c.args[0]);
    if (!same)
      return fail(same.error());
    if (*same)
      return make_int(static_cast<std::int64_t>(i));
  }
  return wrong("index: the list has no such item");
}

result<value> count(const call_site& c) {
  std::int64_t n = 0;
  for (const auto& item : c.self.list()->items) {
    auto same = equals(c.rt, item, *c.args[0]);
    if (!same)
      return fail(same.error());
    n += *same;
  }
  return make_int(n);
}

result<value> copy(const call_site& c) { return c.self; }

/// The sandbox of transformers lets no template change a list or dict.
result<value> immutable(const call_site& c) {
  return wrong(fmt::format("a template may not change a {}: build a new one, e.g. with + or "
                           "a namespace",
                           type_name(c.self)));
}

result<value> get(const call_site& c) {
  const auto& key = *c.args[0];
  if (auto ok = c.rt.budget.spend(1 + c.self.dict()->entries.size() / 16); !ok)
    return fail(ok.error());
  if (!hashable(key) && !key.is_undefined())
    return wrong(fmt::format("{} cannot be a key", type_name(key)));
  const auto* found = c.self.dict()->find(key);
  if (found)
    return *found;
  return c.args[1] ? *c.args[1] : make_none();
}

result<value> keys(const call_site& c) {
  std::vector<value> out;
  for (const auto& entry : c.self.dict()->entries)
    out.push_back(entry.first);
  return make_list(c.rt.budget, std::move(out), sequence_kind::view, "dict_keys");
}

result<value> values(const call_site& c) {
  std::vector<value> out;
  for (const auto& entry : c.self.dict()->entries)
    out.push_back(entry.second);
  return make_list(c.rt.budget, std::move(out), sequence_kind::view, "dict_values");
}

result<value> items(const call_site& c) {
  std::vector<value> out;
  for (const auto& [key, item] : c.self.dict()->entries) {
    auto pair = make_list(c.rt.budget, {key, item}, sequence_kind::tuple);
    if (!pair)
      return pair;
    out.push_back(std::move(*pair));
  }
  return make_list(c.rt.budget, std::move(out), sequence_kind::view, "dict_items");
}

result<value> loop_cycle(const call_site& c) {
  const auto& given = c.raw.positional;
  if (given.empty())
    return wrong("cycle needs something to choose from");
  return given[static_cast<loop_state*>(c.self.obj())->at % given.size()];
}

result<value> loop_changed(const call_site& c) {
  auto now = make_list(c.rt.budget, c.raw.positional, sequence_kind::tuple);
  if (!now)
    return now;
  auto& last = static_cast<loop_state*>(c.self.obj())->last_changed;
  auto same = last ? equals(c.rt, *last, *now) : result<bool>(false);
  if (!same)
    return fail(same.error());
  last = std::move(*now);
  return make_bool(!*same);
}

result<value> cycler_next(const call_site& c) {
  auto& turns = static_cast<turn_taker&>(*c.self.obj());
  const auto out = turns.items[turns.turn];
  turns.turn = (turns.turn + 1) % turns.items.size();
  return out;
}

result<value> cycler_reset(const call_site& c) {
  static_cast<turn_taker&>(*c.self.obj()).turn = 0;
  return make_none();
}

constexpr builtin list_rows[] = {
    {"append", "*", 0, immutable},  {"clear", "*", 0, immutable},  {"copy", "", 0, copy},
    {"count", "value", 1, count},   {"extend", "*", 0, immutable}, {"index", "value", 1, index},
    {"insert", "*", 0, immutable},  {"pop", "*", 0, immutable},    {"remove", "*", 0, immutable},
    {"reverse", "*", 0, immutable}, {"sort", "*", 0, immutable},
};
constexpr builtin tuple_rows[] = {{"count", "value", 1, count}, {"index", "value", 1, index}};
constexpr builtin dict_rows[] = {
    {"clear", "*", 0, immutable},   {"copy", "", 0, copy},
    {"get", "key default", 1, get}, {"items", "", 0, items},
    {"keys", "", 0, keys},          {"pop", "*", 0, immutable},
    {"popitem", "*", 0, immutable}, {"setdefault", "*", 0, immutable},
    {"update", "*", 0, immutable},  {"values", "", 0, values},
};
constexpr builtin loop_rows[] = {{"changed", "*", 0, loop_changed}, {"cycle", "*", 0, loop_cycle}};
constexpr builtin cycler_rows[] = {{"next", "", 0, cycler_next}, {"reset", "", 0, cycler_reset}};

} // namespace

std::span<const builtin> container_methods(const value& self) {
  if (self.dict())
    return dict_rows;
  if (const auto* o = self.obj()) {
    if (o->kind == object_kind::loop)
      return loop_rows;
    return o->kind == object_kind::cycler ? std::span<const builtin>(cycler_rows)
                                          : std::span<const builtin>();
  }
  const auto* l = self.list();
  if (!l || l->kind == sequence_kind::view || l->kind == sequence_kind::generator)
    return {};
  return l->kind == sequence_kind::list ? std::span<const builtin>(list_rows)
                                        : std::span<const builtin>(tuple_rows);
}

} // namespace troupe::engine::jinja
