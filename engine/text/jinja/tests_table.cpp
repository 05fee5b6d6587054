#include <fmt/format.h>

#include "engine/text/jinja/ops.hpp"
#include "engine/text/jinja/utf8.hpp"

namespace troupe::engine::jinja {

namespace {

using predicate = bool (*)(const value&);

template <predicate P>
result<value> simple(const call_site& c) {
  return make_bool(P(c.self));
}

template <operation Op>
result<value> comparison(const call_site& c) {
  auto out = compare(c.rt, Op, c.self, *c.args[0]);
  return out ? make_bool(*out) : result<value>(fail(out.error()));
}

bool is_defined(const value& v) { return !v.is_undefined(); }
bool is_undefined(const value& v) { return v.is_undefined(); }
bool is_none(const value& v) { return v.is_none(); }
bool is_boolean(const value& v) { return v.is<bool>(); }
bool is_true(const value& v) { return v.is<bool>() && *v.get<bool>(); }
bool is_false(const value& v) { return v.is<bool>() && !*v.get<bool>(); }
bool is_integer(const value& v) { return v.is<std::int64_t>(); }
bool is_float(const value& v) { return v.is<double>(); }
bool is_number(const value& v) { return as_double(v).has_value(); }
bool is_string(const value& v) { return v.text() != nullptr; }
bool is_mapping(const value& v) { return v.dict() != nullptr; }
bool is_iterable(const value& v) {
  return v.text() || v.list() || v.dict() || v.is_undefined() ||
         (v.obj() && v.obj()->kind == object_kind::loop);
}
bool is_sequence(const value& v) {
  const auto* l = v.list();
  const bool indexed = l && l->kind != sequence_kind::view && l->kind != sequence_kind::generator;
  return v.text() || v.dict() || indexed || v.is_undefined();
}
bool is_callable(const value& v) {
  const auto* o = v.obj();
  return v.is<const builtin*>() || v.is<method_ptr>() || v.is_undefined() ||
         (o && o->kind != object_kind::name_space && o->kind != object_kind::cycler);
}

/// Whether a text has letters, and all of them are of one case.
template <char32_t (*Map)(char32_t)>
result<value> cased(const call_site& c) {
  auto text = to_text(c.rt, c.self);
  if (!text)
    return fail(text.error());
  bool any = false;
  for (std::size_t at = 0; at < text->size();) {
    const auto one = decode(*text, at);
    if (Map(one.value) != one.value)
      return make_bool(false);
    any = any || to_upper(one.value) != one.value || to_lower(one.value) != one.value;
    at += one.bytes;
  }
  return make_bool(any);
}

result<value> remainder_is(const call_site& c, const value& divisor, std::int64_t wanted) {
  auto rest = arithmetic(c.rt, operation::modulo, c.self, divisor);
  if (!rest)
    return rest;
  auto same = equals(c.rt, *rest, make_int(wanted));
  return same ? make_bool(*same) : result<value>(fail(same.error()));
}

result<value> even(const call_site& c) { return remainder_is(c, make_int(2), 0); }
result<value> odd(const call_site& c) { return remainder_is(c, make_int(2), 1); }
result<value> divisible(const call_site& c) { return remainder_is(c, *c.args[0], 0); }

/// Python's `is`: the same thing, which for small values means equal and of one type.
result<value> same_as(const call_site& c) {
  const auto& other = *c.args[0];
  if (c.self.data.index() != other.data.index())
    return make_bool(false);
  if (c.self.list() || c.self.dict())
    return make_bool(c.self.list() == other.list() && c.self.dict() == other.dict());
  auto same = equals(c.rt, c.self, other);
  return same ? make_bool(*same) : result<value>(fail(same.error()));
}

template <const builtin* (*Find)(std::string_view)>
result<value> exists(const call_site& c) {
  const auto* name = c.self.text();
  return make_bool(name && Find(*name));
}

constexpr builtin rows[] = {
    {"!=", "other", 1, comparison<operation::unequal>},
    {"<", "other", 1, comparison<operation::less>},
    {"<=", "other", 1, comparison<operation::less_equal>},
    {"==", "other", 1, comparison<operation::equal>},
    {">", "other", 1, comparison<operation::greater>},
    {">=", "other", 1, comparison<operation::greater_equal>},
    {"boolean", "", 0, simple<is_boolean>},
    {"callable", "", 0, simple<is_callable>},
    {"defined", "", 0, simple<is_defined>},
    {"divisibleby", "num", 1, divisible},
    {"eq", "other", 1, comparison<operation::equal>},
    {"equalto", "other", 1, comparison<operation::equal>},
    {"even", "", 0, even},
    {"false", "", 0, simple<is_false>},
    {"filter", "", 0, exists<find_filter>},
    {"float", "", 0, simple<is_float>},
    {"ge", "other", 1, comparison<operation::greater_equal>},
    {"greaterthan", "other", 1, comparison<operation::greater>},
    {"gt", "other", 1, comparison<operation::greater>},
    {"in", "seq", 1, comparison<operation::in>},
    {"integer", "", 0, simple<is_integer>},
    {"iterable", "", 0, simple<is_iterable>},
    {"le", "other", 1, comparison<operation::less_equal>},
    {"lessthan", "other", 1, comparison<operation::less>},
    {"lower", "", 0, cased<to_lower>},
    {"lt", "other", 1, comparison<operation::less>},
    {"mapping", "", 0, simple<is_mapping>},
    {"ne", "other", 1, comparison<operation::unequal>},
    {"none", "", 0, simple<is_none>},
    {"number", "", 0, simple<is_number>},
    {"odd", "", 0, odd},
    {"sameas", "other", 1, same_as},
    {"sequence", "", 0, simple<is_sequence>},
    {"string", "", 0, simple<is_string>},
    {"test", "", 0, exists<find_test>},
    {"true", "", 0, simple<is_true>},
    {"undefined", "", 0, simple<is_undefined>},
    {"upper", "", 0, cased<to_upper>},
};

} // namespace

std::span<const builtin> test_rows() { return rows; }

} // namespace troupe::engine::jinja
