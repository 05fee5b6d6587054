#include <cmath>

#include <fmt/format.h>

#include "engine/text/jinja/ops.hpp"

namespace troupe::engine::jinja {

namespace {

std::string_view symbol_of(operation op) {
  static constexpr std::string_view symbols[] = {"+", "-", "*", "/", "//", "%", "**"};
  return symbols[static_cast<std::size_t>(op)];
}

tl::unexpected<error> overflow() {
  return fail(errc::limit_exceeded, "an integer grows beyond 64 bits");
}

tl::unexpected<error> by_zero() { return wrong("division by zero"); }

result<value> integer_power(std::int64_t base, std::int64_t exponent) {
  if (exponent < 0)
    return base == 0 ? result<value>(by_zero())
                     : value{std::pow(static_cast<double>(base), static_cast<double>(exponent))};
  std::int64_t out = 1;
  while (exponent > 0) {
    if ((exponent & 1) && __builtin_mul_overflow(out, base, &out))
      return overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base))
      return overflow();
  }
  return make_int(out);
}

result<value> on_integers(operation op, std::int64_t a, std::int64_t b) {
  std::int64_t out = 0;
  const bool divides = op == operation::floor_divide || op == operation::modulo;
  if (b == 0 && (divides || op == operation::divide))
    return by_zero();
  switch (op) {
  case operation::add:
    return __builtin_add_overflow(a, b, &out) ? result<value>(overflow()) : make_int(out);
  case operation::subtract:
    return __builtin_sub_overflow(a, b, &out) ? result<value>(overflow()) : make_int(out);
  case operation::multiply:
    return __builtin_mul_overflow(a, b, &out) ? result<value>(overflow()) : make_int(out);
  case operation::divide:
    return value{static_cast<double>(a) / static_cast<double>(b)};
  case operation::power:
    return integer_power(a, b);
  default:
    break;
  }
  if (b == -1) // The least integer has no negative.
    return op == operation::modulo ? result<value>(make_int(0))
                                   : on_integers(operation::subtract, 0, a);
  const std::int64_t rest = a % b;
  const bool adjust = rest != 0 && (rest < 0) != (b < 0);
  return make_int(op == operation::modulo ? rest + (adjust ? b : 0) : a / b - (adjust ? 1 : 0));
}

result<value> on_doubles(operation op, double a, double b) {
  if (b == 0.0 &&
      (op == operation::divide || op == operation::floor_divide || op == operation::modulo))
    return by_zero();
  switch (op) {
  case operation::add:
    return value{a + b};
  case operation::subtract:
    return value{a - b};
  case operation::multiply:
    return value{a * b};
  case operation::divide:
    return value{a / b};
  case operation::power:
    if (a < 0 && std::isfinite(b) && b != std::floor(b))
      return wrong("a negative number has no such power");
    if (a == 0.0 && b < 0)
      return by_zero();
    return value{std::pow(a, b)};
  default:
    break;
  }
  double rest = std::fmod(a, b);
  if (rest != 0.0 && (rest < 0) != (b < 0))
    rest += b;
  if (op == operation::modulo)
    return value{rest == 0.0 ? std::copysign(0.0, b) : rest};
  const double whole = std::round((a - rest) / b);
  return value{whole == 0.0 ? std::copysign(0.0, a / b) : whole};
}

result<value> add_texts(runtime& rt, const value& a, const value& b) {
  const auto& x = *std::get<text_ptr>(a.data);
  const auto& y = *std::get<text_ptr>(b.data);
  if (auto ok = rt.budget.room(x.text.size() + y.text.size()); !ok)
    return fail(ok.error());
  if (x.markup == y.markup)
    return make_text(rt.budget, x.text + y.text, x.markup);
  return x.markup ? make_text(rt.budget, x.text + escape_html(y.text), true)
                  : make_text(rt.budget, escape_html(x.text) + y.text, true);
}

result<value> add_lists(runtime& rt, const list_node& a, const list_node& b) {
  if (auto ok = rt.budget.room((a.items.size() + b.items.size()) * sizeof(value)); !ok)
    return fail(ok.error());
  auto items = a.items;
  items.insert(items.end(), b.items.begin(), b.items.end());
  return make_list(rt.budget, std::move(items), a.kind);
}

bool joinable(const value& v) {
  const auto* l = v.list();
  return l && (l->kind == sequence_kind::list || l->kind == sequence_kind::tuple ||
               l->kind == sequence_kind::group);
}

result<value> repeat(runtime& rt, const value& v, std::int64_t times) {
  const auto count = static_cast<std::size_t>(times < 0 ? 0 : times);
  std::size_t bytes = 0;
  const std::size_t size = v.text() ? v.text()->size() : v.list()->items.size() * sizeof(value);
  if (__builtin_mul_overflow(size, count, &bytes))
    bytes = static_cast<std::size_t>(-1);
  if (auto ok = rt.budget.room(bytes); !ok)
    return fail(ok.error());
  if (const auto* text = v.text()) {
    std::string out;
    out.reserve(bytes);
    // By doubling: a copy for each of 10^7 repetitions of one byte would take long.
    while (out.size() < bytes)
      out += out.empty() ? *text : out.substr(0, bytes - out.size());
    return make_text(rt.budget, std::move(out));
  }
  std::vector<value> items;
  for (std::size_t i = 0; i < count && size > 0; ++i)
    items.insert(items.end(), v.list()->items.begin(), v.list()->items.end());
  return make_list(rt.budget, std::move(items), v.list()->kind);
}

} // namespace

std::optional<double> as_double(const value& v) {
  if (const auto* d = v.get<double>())
    return *d;
  std::int64_t i = 0;
  if (as_integer(v, i))
    return static_cast<double>(i);
  return std::nullopt;
}

tl::unexpected<error> undefined_error(const value& v) {
  const auto* u = v.get<undefined>();
  return wrong(u && u->why ? *u->why : "an undefined value is used");
}

result<value> negated(const value& v) {
  std::int64_t i = 0;
  if (as_integer(v, i))
    return on_integers(operation::subtract, 0, i);
  if (const auto* d = v.get<double>())
    return value{-*d};
  if (v.is_undefined())
    return undefined_error(v);
  return wrong(fmt::format("{} has no negative", type_name(v)));
}

result<value> arithmetic(runtime& rt, operation op, const value& a, const value& b) {
  std::int64_t i = 0, j = 0;
  const bool whole_a = as_integer(a, i), whole_b = as_integer(b, j);
  if (whole_a && whole_b)
    return on_integers(op, i, j);
  if (const auto x = as_double(a), y = as_double(b); x && y)
    return on_doubles(op, *x, *y);
  if (a.text() && op == operation::modulo)
    return percent_format(rt, *a.text(), b);
  if (a.is_undefined())
    return undefined_error(a);
  if (b.is_undefined())
    return undefined_error(b);
  if (op == operation::add && a.text() && b.text())
    return add_texts(rt, a, b);
  if (op == operation::add && joinable(a) && joinable(b) &&
      (a.list()->kind == sequence_kind::list) == (b.list()->kind == sequence_kind::list))
    return add_lists(rt, *a.list(), *b.list());
  if (op == operation::multiply && (a.text() || joinable(a)) && whole_b)
    return repeat(rt, a, j);
  if (op == operation::multiply && (b.text() || joinable(b)) && whole_a)
    return repeat(rt, b, i);
  return wrong(fmt::format("{} {} {} is not possible", type_name(a), symbol_of(op), type_name(b)));
}

} // namespace troupe::engine::jinja
