#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "engine/text/jinja/ops.hpp"
#include "engine/text/jinja/utf8.hpp"

namespace troupe::engine::jinja {

namespace {

/// Lists equal lists and tuples tuples; the other kinds only their own.
bool same_kind(const list_node& a, const list_node& b) {
  const auto plain = [](sequence_kind k) {
    return k == sequence_kind::group ? sequence_kind::tuple : k;
  };
  return plain(a.kind) == plain(b.kind);
}

result<bool> equal_lists(runtime& rt, const list_node& a, const list_node& b) {
  if (!same_kind(a, b) || a.items.size() != b.items.size())
    return false;
  for (std::size_t i = 0; i < a.items.size(); ++i) {
    auto same = equals(rt, a.items[i], b.items[i]);
    if (!same || !*same)
      return same;
  }
  return true;
}

result<bool> equal_dicts(runtime& rt, const dict_node& a, const dict_node& b) {
  if (a.entries.size() != b.entries.size())
    return false;
  for (const auto& [key, item] : a.entries) {
    if (auto ok = rt.budget.spend(1 + b.entries.size() / 16); !ok)
      return fail(ok.error());
    const auto* other = b.find(key);
    if (!other)
      return false;
    auto same = equals(rt, item, *other);
    if (!same || !*same)
      return same;
  }
  return true;
}

result<bool> less_lists(runtime& rt, const list_node& a, const list_node& b) {
  const auto shared = std::min(a.items.size(), b.items.size());
  for (std::size_t i = 0; i < shared; ++i) {
    auto same = equals(rt, a.items[i], b.items[i]);
    if (!same)
      return same;
    if (!*same)
      return less(rt, a.items[i], b.items[i]);
  }
  return a.items.size() < b.items.size();
}

bool ordered_kind(const list_node& l) {
  return l.kind == sequence_kind::list || l.kind == sequence_kind::tuple ||
         l.kind == sequence_kind::group;
}

/// One merge of two neighbouring runs of `order` into `merged`.
struct merge_step {
  runtime& rt;
  const std::vector<value>& keys;
  bool reverse;
  const std::vector<std::size_t>& order;
  std::vector<std::size_t>& merged;

  /// Whether the later item goes first; equal ones keep their order.
  [[nodiscard]] result<bool> overtakes(std::size_t later, std::size_t earlier) const {
    return reverse ? less(rt, keys[earlier], keys[later]) : less(rt, keys[later], keys[earlier]);
  }

  [[nodiscard]] result<void> merge(std::size_t from, std::size_t width) {
    const auto middle = std::min(from + width, order.size());
    const auto to = std::min(from + 2 * width, order.size());
    auto i = from, j = middle;
    for (auto k = from; k < to; ++k) {
      const bool both = i < middle && j < to;
      const auto later = both ? overtakes(order[j], order[i]) : result<bool>(i == middle);
      if (!later)
        return fail(later.error());
      merged[k] = *later ? order[j++] : order[i++];
    }
    return {};
  }
};

} // namespace

result<bool> equals(runtime& rt, const value& a, const value& b) {
  if (auto ok = rt.budget.spend(1); !ok)
    return fail(ok.error());
  if (const auto* x = a.text()) {
    const auto* y = b.text();
    return y && *x == *y;
  }
  std::int64_t i = 0, j = 0;
  if (as_integer(a, i) && as_integer(b, j))
    return i == j;
  if (const auto x = as_double(a), y = as_double(b); x && y)
    return *x == *y;
  if (a.list() && b.list())
    return equal_lists(rt, *a.list(), *b.list());
  if (a.dict() && b.dict())
    return equal_dicts(rt, *a.dict(), *b.dict());
  if (a.obj() || b.obj())
    return a.obj() == b.obj();
  if (const auto* x = a.get<const builtin*>(); x && b.is<const builtin*>())
    return *x == *b.get<const builtin*>();
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

result<bool> less(runtime& rt, const value& a, const value& b) {
  if (auto ok = rt.budget.spend(1); !ok)
    return fail(ok.error());
  std::int64_t i = 0, j = 0;
  if (as_integer(a, i) && as_integer(b, j))
    return i < j;
  if (const auto x = as_double(a), y = as_double(b); x && y)
    return *x < *y;
  if (a.text() && b.text())
    return *a.text() < *b.text();
  const auto* x = a.list();
  const auto* y = b.list();
  if (x && y && same_kind(*x, *y) && ordered_kind(*x))
    return less_lists(rt, *x, *y);
  if (a.is_undefined())
    return undefined_error(a);
  if (b.is_undefined())
    return undefined_error(b);
  return wrong(fmt::format("{} and {} cannot be compared by size", type_name(a), type_name(b)));
}

result<bool> contains(runtime& rt, const value& container, const value& item) {
  if (const auto* text = container.text()) {
    const auto* needle = item.text();
    if (!needle)
      return wrong(fmt::format("'in <text>' needs a text, not {}", type_name(item)));
    if (auto ok = rt.budget.spend(text->size() / 512); !ok)
      return fail(ok.error());
    return find_text(*text, *needle) != std::string_view::npos;
  }
  if (const auto* d = container.dict()) {
    if (auto ok = rt.budget.spend(d->entries.size() / 16); !ok)
      return fail(ok.error());
    const bool listing = item.list() && item.list()->kind == sequence_kind::list;
    if (listing || item.dict())
      return wrong(fmt::format("{} cannot be a key", type_name(item)));
    return d->find(item) != nullptr;
  }
  if (container.is_undefined())
    return false;
  const auto* l = container.list();
  if (!l)
    return wrong(fmt::format("{} has no items to look in", type_name(container)));
  for (const auto& candidate : l->items) {
    auto same = equals(rt, candidate, item);
    if (!same || *same)
      return same;
  }
  return false;
}

result<bool> compare(runtime& rt, operation op, const value& a, const value& b) {
  const auto inverse = [](result<bool> r) { return r ? result<bool>(!*r) : r; };
  switch (op) {
  case operation::equal:
    return equals(rt, a, b);
  case operation::unequal:
    return inverse(equals(rt, a, b));
  case operation::in:
    return contains(rt, b, a);
  case operation::not_in:
    return inverse(contains(rt, b, a));
  case operation::less:
    return less(rt, a, b);
  case operation::greater:
    return less(rt, b, a);
  default:
    break;
  }
  // a <= b is (a < b or a == b) rather than (not b < a): nan is in no order.
  const bool swap = op == operation::greater_equal;
  auto smaller = swap ? less(rt, b, a) : less(rt, a, b);
  if (!smaller || *smaller)
    return smaller;
  return equals(rt, a, b);
}

result<std::vector<value>> sorted(runtime& rt, const std::vector<value>& items,
                                  const std::vector<value>& keys, bool reverse) {
  // A merge sort of our own, because a comparison may fail and then must end the sort.
  std::vector<std::size_t> order(items.size()), merged(items.size());
  std::iota(order.begin(), order.end(), 0);
  merge_step step{rt, keys, reverse, order, merged};
  for (std::size_t width = 1; width < order.size(); width *= 2) {
    for (std::size_t from = 0; from < order.size(); from += 2 * width)
      if (auto ok = step.merge(from, width); !ok)
        return fail(ok.error());
    order.swap(merged);
  }
  std::vector<value> out;
  out.reserve(items.size());
  for (const auto i : order)
    out.push_back(items[i]);
  return out;
}

} // namespace troupe::engine::jinja
