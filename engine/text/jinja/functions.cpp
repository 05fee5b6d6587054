#include <fmt/format.h>

#include "engine/text/jinja/ops.hpp"
#include "engine/text/jinja/strftime.hpp"

namespace troupe::engine::jinja {

namespace {

/// The longest range of Jinja's sandbox.
constexpr std::int64_t range_items_max = 100'000;

result<value> range(const call_site& c) {
  auto a = c.integer(0, 0), b = c.integer(1, 0), step = c.integer(2, 1);
  if (!a || !b || !step)
    return fail(!a ? a.error() : !b ? b.error() : step.error());
  const std::int64_t start = c.args[1] ? *a : 0, stop = c.args[1] ? *b : *a;
  if (*step == 0)
    return wrong("the step of a range is zero");
  // The distance may pass 64 bits, where the range is too long in any case.
  const auto distance = static_cast<double>(stop) - static_cast<double>(start);
  if (distance / static_cast<double>(*step) > static_cast<double>(range_items_max))
    return fail(errc::limit_exceeded,
                fmt::format("a range has more than {} items", range_items_max));
  std::vector<value> items;
  for (auto i = start; *step > 0 ? i < stop : i > stop;) {
    items.push_back(make_int(i));
    if (__builtin_add_overflow(i, *step, &i))
      break;
  }
  if (auto ok = c.rt.budget.spend(items.size() / 8); !ok)
    return fail(ok.error());
  auto label = *step == 1 ? fmt::format("range({}, {})", start, stop)
                          : fmt::format("range({}, {}, {})", start, stop, *step);
  return make_list(c.rt.budget, std::move(items), sequence_kind::range, std::move(label));
}

/// The entries that dict() and namespace() are given: a dict or pairs, then named ones.
result<std::vector<std::pair<value, value>>> entries_of(const call_site& c) {
  std::vector<std::pair<value, value>> out;
  const auto put = [&](const value& key, const value& item) {
    for (auto& entry : out)
      if (entry.first.text() && key.text() && *entry.first.text() == *key.text()) {
        entry.second = item;
        return;
      }
    out.emplace_back(key, item);
  };
  const auto& given = c.raw.positional;
  if (given.size() > 1)
    return wrong("at most one positional argument is taken");
  if (given.size() == 1 && given[0].dict())
    out = given[0].dict()->entries;
  if (given.size() == 1 && !given[0].dict()) {
    auto pairs = iterate(c.rt, given[0]);
    if (!pairs)
      return fail(pairs.error());
    for (const auto& pair : (*pairs)->items) {
      const auto* two = pair.list();
      if (!two || two->items.size() != 2 || !hashable(two->items[0]))
        return wrong("a dict is made of pairs of a key and a value");
      if (auto ok = c.rt.budget.spend(1 + out.size() / 8); !ok)
        return fail(ok.error());
      put(two->items[0], two->items[1]);
    }
  }
  for (const auto& [name, item] : c.raw.named)
    put(make_literal(name), item);
  return out;
}

result<value> dict(const call_site& c) {
  auto entries = entries_of(c);
  return entries ? make_dict(c.rt.budget, std::move(*entries))
                 : result<value>(fail(entries.error()));
}

result<value> make_name_space(const call_site& c) {
  auto entries = entries_of(c);
  if (!entries)
    return fail(entries.error());
  auto made = std::make_unique<name_space>();
  for (const auto& [key, item] : *entries)
    if (const auto* name = key.text())
      made->set(*name, item);
  auto kept = c.rt.keep(std::move(made));
  return kept ? value{*kept} : result<value>(fail(kept.error()));
}

result<value> raise_exception(const call_site& c) {
  auto message = to_text(c.rt, *c.args[0]);
  if (!message)
    return fail(message.error());
  c.rt.raised = true;
  return wrong(std::move(*message));
}

result<value> strftime_now(const call_site& c) {
  auto form = c.text(0, "");
  if (!form)
    return fail(form.error());
  if (!c.rt.now)
    return wrong("strftime_now is used, but the rendering was given no time");
  auto text = format_time(c.rt, *form, *c.rt.now);
  return text ? make_text(c.rt.budget, std::move(*text)) : result<value>(fail(text.error()));
}

template <object_kind Kind>
result<value> take_turns(const call_site& c) {
  auto made = std::make_unique<turn_taker>(Kind);
  made->items = c.raw.positional;
  for (const auto& [name, item] : c.raw.named)
    made->items.push_back(item);
  if (made->items.empty() && Kind == object_kind::cycler)
    return wrong("cycler needs at least one item");
  if (made->items.empty())
    made->items.push_back(make_literal(", "));
  auto kept = c.rt.keep(std::move(made));
  return kept ? value{*kept} : result<value>(fail(kept.error()));
}

constexpr builtin rows[] = {
    {"cycler", "*", 0, take_turns<object_kind::cycler>}, {"dict", "*", 0, dict},
    {"joiner", "*", 0, take_turns<object_kind::joiner>}, {"namespace", "*", 0, make_name_space},
    {"raise_exception", "message", 1, raise_exception},  {"range", "start stop step", 1, range},
    {"strftime_now", "format", 1, strftime_now},
};

} // namespace

std::span<const builtin> function_rows() { return rows; }

} // namespace troupe::engine::jinja
