#include "engine/text/jinja/value.hpp"

#include <algorithm>

namespace troupe::engine::jinja {

namespace {

std::uint32_t depth_of(const value& v) noexcept {
  if (const auto* l = v.list())
    return l->depth;
  if (const auto* d = v.dict())
    return d->depth;
  if (const auto* m = v.get<method_ptr>())
    return depth_of((*m)->self);
  return 0;
}

bool is_number(const value& v) noexcept {
  return v.is<bool>() || v.is<std::int64_t>() || v.is<double>();
}

double number_of(const value& v) noexcept {
  if (const auto* d = v.get<double>())
    return *d;
  std::int64_t i = 0;
  return as_integer(v, i) ? static_cast<double>(i) : 0.0;
}

bool same_key(const value& a, const value& b) noexcept {
  if (const auto* x = a.text()) {
    const auto* y = b.text();
    return y && *x == *y;
  }
  if (is_number(a) && is_number(b)) {
    std::int64_t x = 0, y = 0;
    if (as_integer(a, x) && as_integer(b, y))
      return x == y;
    return number_of(a) == number_of(b);
  }
  return a.is_none() && b.is_none();
}

} // namespace

const std::string* value::text() const noexcept {
  const auto* p = get<text_ptr>();
  return p ? &(*p)->text : nullptr;
}

const list_node* value::list() const noexcept {
  const auto* p = get<list_ptr>();
  return p ? p->get() : nullptr;
}

const dict_node* value::dict() const noexcept {
  const auto* p = get<dict_ptr>();
  return p ? p->get() : nullptr;
}

object* value::obj() const noexcept {
  const auto* p = get<object*>();
  return p ? *p : nullptr;
}

list_node::list_node(std::vector<value> i, sequence_kind k, std::string l, meter* owner)
    : items(std::move(i)), kind(k), label(std::move(l)),
      cost(owner, sizeof(list_node) + items.size() * sizeof(value)) {
  for (const auto& item : items)
    depth = std::max(depth, depth_of(item) + 1);
}

dict_node::dict_node(std::vector<std::pair<value, value>> e, meter* owner)
    : entries(std::move(e)), cost(owner, sizeof(dict_node) + entries.size() * 2 * sizeof(value)) {
  for (const auto& entry : entries)
    depth = std::max(depth, depth_of(entry.second) + 1);
}

const value* dict_node::find(const value& key) const noexcept {
  for (const auto& entry : entries)
    if (same_key(entry.first, key))
      return &entry.second;
  return nullptr;
}

const value* dict_node::find(std::string_view key) const noexcept {
  for (const auto& entry : entries)
    if (const auto* name = entry.first.text(); name && *name == key)
      return &entry.second;
  return nullptr;
}

const value* name_space::find(std::string_view name) const noexcept {
  for (const auto& field : fields)
    if (field.first == name)
      return &field.second;
  return nullptr;
}

void name_space::set(std::string_view name, value v) {
  for (auto& field : fields)
    if (field.first == name) {
      field.second = std::move(v);
      return;
    }
  fields.emplace_back(std::string(name), std::move(v));
}

value make_undefined(std::string why) {
  return {undefined{std::make_shared<const std::string>(std::move(why))}};
}

value make_literal(std::string text) {
  return {std::make_shared<const text_node>(std::move(text), false, nullptr)};
}

result<value> make_text(meter& m, std::string text, bool markup) {
  if (auto ok = m.room(text.size() + sizeof(text_node)); !ok)
    return fail(ok.error());
  return value{std::make_shared<const text_node>(std::move(text), markup, &m)};
}

result<value> make_list(meter& m, std::vector<value> items, sequence_kind kind, std::string label) {
  if (auto ok = m.room(items.size() * sizeof(value)); !ok)
    return fail(ok.error());
  auto node = std::make_shared<const list_node>(std::move(items), kind, std::move(label), &m);
  if (node->depth > m.bounds().value_depth_max)
    return fail(errc::limit_exceeded, "a value is nested deeper than allowed");
  return value{std::move(node)};
}

result<value> make_dict(meter& m, std::vector<std::pair<value, value>> entries) {
  if (auto ok = m.room(entries.size() * 2 * sizeof(value)); !ok)
    return fail(ok.error());
  auto node = std::make_shared<const dict_node>(std::move(entries), &m);
  if (node->depth > m.bounds().value_depth_max)
    return fail(errc::limit_exceeded, "a value is nested deeper than allowed");
  return value{std::move(node)};
}

std::string_view type_name(const value& v) noexcept {
  static constexpr std::string_view names[] = {"Undefined",
                                               "NoneType",
                                               "bool",
                                               "int",
                                               "float",
                                               "str",
                                               "list",
                                               "dict",
                                               "object",
                                               "function",
                                               "builtin_function_or_method"};
  if (const auto* l = v.list()) {
    static constexpr std::string_view kinds[] = {"list",  "tuple",     "tuple",
                                                 "range", "dict view", "generator"};
    return kinds[static_cast<std::size_t>(l->kind)];
  }
  if (const auto* o = v.obj()) {
    static constexpr std::string_view kinds[] = {"Namespace", "Macro", "LoopContext", "Cycler",
                                                 "Joiner"};
    return kinds[static_cast<std::size_t>(o->kind)];
  }
  return names[v.data.index()];
}

bool truthy(const value& v) noexcept {
  if (const auto* b = v.get<bool>())
    return *b;
  if (const auto* i = v.get<std::int64_t>())
    return *i != 0;
  if (const auto* d = v.get<double>())
    return *d != 0.0;
  if (const auto* t = v.text())
    return !t->empty();
  if (const auto* l = v.list())
    return l->kind == sequence_kind::generator || !l->items.empty();
  if (const auto* d = v.dict())
    return !d->entries.empty();
  return !v.is_undefined() && !v.is_none();
}

bool hashable(const value& v) noexcept { return v.text() || v.is_none() || is_number(v); }

const std::int64_t* as_integer(const value& v, std::int64_t& storage) noexcept {
  if (const auto* i = v.get<std::int64_t>())
    storage = *i;
  else if (const auto* b = v.get<bool>())
    storage = *b ? 1 : 0;
  else
    return nullptr;
  return &storage;
}

} // namespace troupe::engine::jinja
