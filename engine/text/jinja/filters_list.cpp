#include <algorithm>

#include <fmt/format.h>

#include "engine/text/jinja/ops.hpp"
#include "engine/text/jinja/utf8.hpp"

namespace troupe::engine::jinja {

namespace {

/// The items of the subject, each with the key that orders it: its attribute where `path` is
/// given, in small letters where case does not count.
struct keyed {
  std::vector<value> items, keys;
};

result<value> key_of(runtime& rt, const value& item, const value* path, bool case_sensitive) {
  auto key = path && !path->is_none() ? get_path(rt, item, *path) : result<value>(item);
  if (!key || case_sensitive || !key->text())
    return key;
  return make_text(rt.budget, lower(*key->text()));
}

result<keyed> keys_of(const call_site& c, const value* path, bool case_sensitive) {
  auto items = iterate(c.rt, c.self);
  if (!items)
    return fail(items.error());
  keyed out{(*items)->items, {}};
  for (const auto& item : out.items) {
    auto key = key_of(c.rt, item, path, case_sensitive);
    if (!key)
      return fail(key.error());
    out.keys.push_back(std::move(*key));
  }
  return out;
}

result<value> fallback(const call_site& c) {
  const bool missing = c.self.is_undefined() || (c.flag(1, false) && !truthy(c.self));
  if (!missing)
    return c.self;
  return c.args[0] ? *c.args[0] : make_literal("");
}

result<value> first(const call_site& c) {
  auto items = iterate(c.rt, c.self);
  if (!items)
    return fail(items.error());
  const auto& all = (*items)->items;
  return all.empty() ? make_undefined("no first item, the sequence is empty") : all.front();
}

result<value> last(const call_site& c) {
  auto items = iterate(c.rt, c.self);
  if (!items)
    return fail(items.error());
  const auto& all = (*items)->items;
  return all.empty() ? make_undefined("no last item, the sequence is empty") : all.back();
}

result<value> count(const call_site& c) {
  auto n = length(c.self);
  return n ? make_int(static_cast<std::int64_t>(*n)) : result<value>(fail(n.error()));
}

result<value> to_list(const call_site& c) {
  auto items = iterate(c.rt, c.self);
  return items ? make_list(c.rt.budget, (*items)->items) : result<value>(fail(items.error()));
}

result<value> join(const call_site& c) {
  auto items = keys_of(c, c.args[1], true);
  auto between = c.args[0] ? to_text(c.rt, *c.args[0]) : result<std::string>(std::string());
  if (!items || !between)
    return fail(items ? between.error() : items.error());
  std::string out;
  for (std::size_t i = 0; i < items->keys.size(); ++i) {
    auto text = to_text(c.rt, items->keys[i]);
    if (!text)
      return fail(text.error());
    auto ok = append(c.rt, out, i > 0 ? std::string_view(*between) : std::string_view());
    if (ok)
      ok = append(c.rt, out, *text);
    if (!ok)
      return fail(ok.error());
  }
  return make_text(c.rt.budget, std::move(out));
}

result<value> reverse(const call_site& c) {
  auto items = iterate(c.rt, c.self);
  if (!items)
    return fail(items.error());
  std::vector<value> out((*items)->items.rbegin(), (*items)->items.rend());
  if (!c.self.text())
    return make_list(c.rt.budget, std::move(out), sequence_kind::generator, "<reversed object>");
  std::string text;
  for (const auto& one : out)
    text += *one.text();
  return make_text(c.rt.budget, std::move(text));
}

result<value> sort(const call_site& c) {
  auto items = keys_of(c, c.args[2], c.flag(1, false));
  if (!items)
    return fail(items.error());
  auto out = sorted(c.rt, items->items, items->keys, c.flag(0, false));
  return out ? make_list(c.rt.budget, std::move(*out)) : result<value>(fail(out.error()));
}

result<value> unique(const call_site& c) {
  auto items = keys_of(c, c.args[1], c.flag(0, false));
  if (!items)
    return fail(items.error());
  std::vector<value> seen, out;
  for (std::size_t i = 0; i < items->items.size(); ++i) {
    const auto& key = items->keys[i];
    if (key.dict() || (key.list() && key.list()->kind == sequence_kind::list))
      return wrong(fmt::format("unique cannot tell {} apart", type_name(key)));
    bool known = false;
    for (std::size_t j = 0; j < seen.size() && !known; ++j) {
      auto same = equals(c.rt, seen[j], items->keys[i]);
      if (!same)
        return fail(same.error());
      known = *same;
    }
    if (known)
      continue;
    seen.push_back(items->keys[i]);
    out.push_back(items->items[i]);
  }
  return make_list(c.rt.budget, std::move(out), sequence_kind::generator,
                   "<generator object do_unique>");
}

/// The least item, or the greatest.
template <bool Greatest>
result<value> extreme(const call_site& c) {
  auto items = keys_of(c, c.args[1], c.flag(0, false));
  if (!items)
    return fail(items.error());
  if (items->items.empty())
    return make_undefined("no item to choose, the sequence is empty");
  std::size_t best = 0;
  for (std::size_t i = 1; i < items->items.size(); ++i) {
    const auto& a = items->keys[Greatest ? best : i];
    const auto& b = items->keys[Greatest ? i : best];
    auto better = less(c.rt, a, b);
    if (!better)
      return fail(better.error());
    best = *better ? i : best;
  }
  return items->items[best];
}

result<value> sum(const call_site& c) {
  auto items = keys_of(c, c.args[0], true);
  if (!items)
    return fail(items.error());
  result<value> total = c.args[1] ? *c.args[1] : make_int(0);
  for (std::size_t i = 0; total && i < items->keys.size(); ++i)
    total = arithmetic(c.rt, operation::add, *total, items->keys[i]);
  return total;
}

result<value> chunk(const call_site& c, const std::vector<value>& all, std::size_t from,
                    std::size_t to, std::size_t fill) {
  std::vector<value> row(all.begin() + static_cast<std::ptrdiff_t>(from),
                         all.begin() + static_cast<std::ptrdiff_t>(to));
  if (auto ok = c.rt.budget.room(fill * sizeof(value)); !ok)
    return fail(ok.error());
  if (c.args[1] && !c.args[1]->is_none())
    row.insert(row.end(), fill, *c.args[1]);
  return make_list(c.rt.budget, std::move(row));
}

result<value> batch(const call_site& c) {
  auto items = iterate(c.rt, c.self);
  auto size = c.integer(0, 1);
  if (!items || !size)
    return fail(items ? size.error() : items.error());
  if (*size < 1)
    return wrong("batch needs a positive count");
  const auto& all = (*items)->items;
  const auto width = static_cast<std::size_t>(*size);
  std::vector<value> rows;
  for (std::size_t from = 0; from < all.size(); from += std::min(width, all.size() - from)) {
    const auto to = from + std::min(width, all.size() - from);
    auto row = chunk(c, all, from, to, width - (to - from));
    if (!row)
      return row;
    rows.push_back(std::move(*row));
  }
  return make_list(c.rt.budget, std::move(rows), sequence_kind::generator,
                   "<generator object do_batch>");
}

result<value> slices(const call_site& c) {
  auto items = iterate(c.rt, c.self);
  auto count = c.integer(0, 1);
  if (!items || !count)
    return fail(items ? count.error() : items.error());
  const auto& all = (*items)->items;
  if (*count < 1 || *count > 100000)
    return wrong("slice needs a count from 1 to 100000");
  const auto n = static_cast<std::size_t>(*count);
  const auto each = all.size() / n, longer = all.size() % n;
  std::vector<value> rows;
  std::size_t from = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const auto to = from + each + (i < longer ? 1 : 0);
    auto row = chunk(c, all, from, to, longer > 0 && i >= longer ? 1 : 0);
    if (!row)
      return row;
    rows.push_back(std::move(*row));
    from = to;
  }
  return make_list(c.rt.budget, std::move(rows), sequence_kind::generator,
                   "<generator object do_slice>");
}

result<value> pairs_of(runtime& rt, const dict_node& d, std::vector<value>& out) {
  for (const auto& [key, item] : d.entries) {
    auto pair = make_list(rt.budget, {key, item}, sequence_kind::tuple);
    if (!pair)
      return pair;
    out.push_back(std::move(*pair));
  }
  return value{};
}

result<value> items(const call_site& c) {
  std::vector<value> out;
  if (const auto* d = c.self.dict()) {
    if (auto ok = pairs_of(c.rt, *d, out); !ok)
      return ok;
  } else if (!c.self.is_undefined()) {
    return wrong("items needs a dict");
  }
  return make_list(c.rt.budget, std::move(out), sequence_kind::generator,
                   "<generator object do_items>");
}

result<value> dict_sort(const call_site& c) {
  const auto* d = c.self.dict();
  if (!d)
    return c.self.is_undefined() ? result<value>(undefined_error(c.self))
                                 : wrong("dictsort needs a dict");
  auto by = c.text(1, "key");
  if (!by)
    return fail(by.error());
  if (*by != "key" && *by != "value")
    return wrong("dictsort sorts by key or by value");
  std::vector<value> pairs, keys;
  if (auto ok = pairs_of(c.rt, *d, pairs); !ok)
    return ok;
  for (const auto& [key, item] : d->entries) {
    auto k = key_of(c.rt, *by == "key" ? key : item, nullptr, c.flag(0, false));
    if (!k)
      return k;
    keys.push_back(std::move(*k));
  }
  auto out = sorted(c.rt, pairs, keys, c.flag(2, false));
  return out ? make_list(c.rt.budget, std::move(*out)) : result<value>(fail(out.error()));
}

constexpr builtin rows[] = {
    {"batch", "linecount fill_with", 1, batch},
    {"count", "", 0, count},
    {"d", "default_value boolean", 0, fallback},
    {"default", "default_value boolean", 0, fallback},
    {"dictsort", "case_sensitive by reverse", 0, dict_sort},
    {"first", "", 0, first},
    {"items", "", 0, items},
    {"join", "d attribute", 0, join},
    {"last", "", 0, last},
    {"length", "", 0, count},
    {"list", "", 0, to_list},
    {"max", "case_sensitive attribute", 0, extreme<true>},
    {"min", "case_sensitive attribute", 0, extreme<false>},
    {"reverse", "", 0, reverse},
    {"slice", "slices fill_with", 1, slices},
    {"sort", "reverse case_sensitive attribute", 0, sort},
    {"sum", "attribute start", 0, sum},
    {"unique", "case_sensitive attribute", 0, unique},
};

} // namespace

std::span<const builtin> list_filters() { return rows; }

} // namespace troupe::engine::jinja
