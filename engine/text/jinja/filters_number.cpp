#include <charconv>
#include <cmath>
#include <cstdio>

#include <fmt/format.h>

#include "engine/text/jinja/ops.hpp"
#include "engine/text/jinja/utf8.hpp"

namespace troupe::engine::jinja {

namespace {

/// The number that a text spells, white space around it and underscores within it allowed.
std::optional<double> parse_double(std::string_view text) {
  text = strip_left(strip_right(text));
  if (!text.empty() && text[0] == '+')
    text.remove_prefix(text.size() > 1 && text[1] == '-' ? 0 : 1);
  double d = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), d);
  if (text.empty() || read.ec != std::errc() || read.ptr != text.data() + text.size())
    return std::nullopt;
  return d;
}

std::optional<std::int64_t> parse_integer(std::string_view text, int base) {
  text = strip_left(strip_right(text));
  const bool negative = !text.empty() && text[0] == '-';
  if (!text.empty() && (negative || text[0] == '+'))
    text.remove_prefix(1);
  static constexpr std::string_view prefixes = "xob";
  const auto mark = text.size() > 2 && text[0] == '0'
                        ? prefixes.find(static_cast<char>(text[1] | 0x20))
                        : prefixes.npos;
  static constexpr int bases[] = {16, 8, 2};
  if (mark != prefixes.npos && bases[mark] == base)
    text.remove_prefix(2);
  if (text.empty() || text[0] == '-' || text[0] == '+')
    return std::nullopt;
  const std::string digits = (negative ? "-" : "") + std::string(text);
  std::int64_t n = 0;
  const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), n, base);
  if (read.ec != std::errc() || read.ptr != digits.data() + digits.size())
    return std::nullopt;
  return n;
}

std::optional<std::int64_t> truncated(double d) {
  constexpr double bound = 9223372036854775808.0;
  if (!(d > -bound && d < bound))
    return std::nullopt;
  return static_cast<std::int64_t>(d);
}

result<value> absolute(const call_site& c) {
  std::int64_t i = 0;
  if (as_integer(c.self, i))
    return i < 0 ? negated(c.self) : make_int(i);
  if (const auto* d = c.self.get<double>())
    return value{std::fabs(*d)};
  return c.self.is_undefined() ? result<value>(undefined_error(c.self))
                               : wrong(fmt::format("{} has no absolute value", type_name(c.self)));
}

result<value> to_integer(const call_site& c) {
  auto base = c.integer(1, 10);
  if (!base)
    return fail(base.error());
  if (*base < 2 || *base > 36)
    return wrong("int needs a base from 2 to 36");
  std::optional<std::int64_t> out;
  std::int64_t i = 0;
  if (as_integer(c.self, i))
    out = i;
  else if (const auto* d = c.self.get<double>())
    out = truncated(*d);
  else if (const auto* text = c.self.text()) {
    out = parse_integer(*text, static_cast<int>(*base));
    const auto d = out ? std::nullopt : parse_double(*text);
    out = d ? truncated(*d) : out;
  } else if (c.self.is_undefined())
    return undefined_error(c.self);
  if (out)
    return make_int(*out);
  return c.args[0] ? *c.args[0] : make_int(0);
}

result<value> to_float(const call_site& c) {
  if (const auto d = as_double(c.self))
    return value{*d};
  if (c.self.is_undefined())
    return undefined_error(c.self);
  const auto d = c.self.text() ? parse_double(*c.self.text()) : std::nullopt;
  if (d)
    return value{*d};
  return c.args[0] ? *c.args[0] : value{0.0};
}

/// round() to `places` decimals, ties of the exact binary value to even, as Python does.
double rounded(double d, int places) {
  if (!std::isfinite(d) || places > 300)
    return d;
  if (places < 0) {
    const double scale = std::pow(10.0, -places);
    return std::isfinite(scale) ? std::nearbyint(d / scale) * scale : 0.0;
  }
  double out = 0;
  const std::string text = fmt::format("{:.{}f}", d, places);
  std::from_chars(text.data(), text.data() + text.size(), out);
  return out;
}

result<value> round_number(const call_site& c) {
  auto places = c.integer(0, 0);
  auto method = c.text(1, "common");
  if (!places || !method)
    return fail(places ? method.error() : places.error());
  if (*places > 400 || *places < -400)
    return wrong("round needs a precision from -400 to 400");
  const auto d = as_double(c.self);
  if (!d)
    return c.self.is_undefined() ? result<value>(undefined_error(c.self))
                                 : wrong(fmt::format("{} cannot be rounded", type_name(c.self)));
  const int digits = static_cast<int>(*places);
  if (*method == "common") {
    std::int64_t i = 0;
    if (as_integer(c.self, i) && digits >= 0)
      return make_int(i);
    const double out = rounded(*d, digits);
    const auto whole = as_integer(c.self, i) ? truncated(out) : std::nullopt;
    return whole ? make_int(*whole) : value{out};
  }
  if (*method != "ceil" && *method != "floor")
    return wrong("the method of round is common, ceil or floor");
  const double scale = std::pow(10.0, digits);
  return value{(*method == "ceil" ? std::ceil(*d * scale) : std::floor(*d * scale)) / scale};
}

constexpr builtin rows[] = {
    {"abs", "", 0, absolute},
    {"float", "default", 0, to_float},
    {"int", "default base", 0, to_integer},
    {"round", "precision method", 0, round_number},
};

} // namespace

std::span<const builtin> number_filters() { return rows; }

} // namespace troupe::engine::jinja
