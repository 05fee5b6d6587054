#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "engine/text/jinja/ops.hpp"
#include "engine/text/jinja/utf8.hpp"

namespace troupe::engine::jinja {

namespace {

constexpr int width_max = 10000;

struct spec {
  std::string key;
  bool left = false, zero = false, plus = false, space = false, keyed = false;
  int width = 0, precision = -1;
  char kind = 's';
};

std::string padded(const spec& s, std::string text, bool number) {
  const auto size = static_cast<int>(count_characters(text));
  if (size >= s.width)
    return text;
  const std::string pad(static_cast<std::size_t>(s.width - size),
                        s.zero && number && !s.left ? '0' : ' ');
  if (s.left)
    return text + pad;
  const bool sign = s.zero && number && !text.empty() && (text[0] == '-' || text[0] == '+');
  return sign ? text[0] + pad + text.substr(1) : pad + text;
}

std::string signed_text(const spec& s, bool negative, std::string digits) {
  return (negative ? "-" : s.plus ? "+" : s.space ? " " : "") + digits;
}

result<std::string> integer_text(const spec& s, const value& v) {
  std::int64_t i = 0;
  if (!as_integer(v, i)) {
    const auto d = as_double(v);
    if (!d || s.kind == 'x' || s.kind == 'X' || s.kind == 'o' || !(std::fabs(*d) < 9e18))
      return wrong(fmt::format("%{} needs an integer, not {}", s.kind, type_name(v)));
    i = static_cast<std::int64_t>(*d);
  }
  const auto size = i < 0 ? 0 - static_cast<std::uint64_t>(i) : static_cast<std::uint64_t>(i);
  auto digits = s.kind == 'x'   ? fmt::format("{:x}", size)
                : s.kind == 'X' ? fmt::format("{:X}", size)
                : s.kind == 'o' ? fmt::format("{:o}", size)
                                : fmt::format("{}", size);
  if (s.precision > static_cast<int>(digits.size()))
    digits.insert(0, static_cast<std::size_t>(s.precision) - digits.size(), '0');
  return signed_text(s, i < 0, std::move(digits));
}

result<std::string> number_text(const spec& s, const value& v) {
  if (s.kind == 'd' || s.kind == 'i' || s.kind == 'u' || s.kind == 'x' || s.kind == 'X' ||
      s.kind == 'o')
    return integer_text(s, v);
  const auto d = as_double(v);
  if (!d)
    return wrong(fmt::format("%{} needs a number, not {}", s.kind, type_name(v)));
  const int places = s.precision < 0 ? 6 : s.precision;
  const double size = std::fabs(*d);
  auto digits = s.kind == 'f' || s.kind == 'F' ? fmt::format("{:.{}f}", size, places)
                : s.kind == 'e'                ? fmt::format("{:.{}e}", size, places)
                                               : fmt::format("{:.{}g}", size, std::max(places, 1));
  return signed_text(s, std::signbit(*d), std::move(digits));
}

class formatter {
public:
  formatter(runtime& rt, std::string_view form, const value& args)
      : rt_(rt), form_(form), args_(args) {}

  result<value> run() {
    std::string out;
    while (at_ < form_.size()) {
      const auto percent = std::min(form_.find('%', at_), form_.size());
      if (auto ok = append(rt_, out, form_.substr(at_, percent - at_)); !ok)
        return fail(ok.error());
      at_ = percent + 1;
      if (percent == form_.size())
        break;
      auto piece = one();
      if (!piece)
        return fail(piece.error());
      if (auto ok = append(rt_, out, *piece); !ok)
        return fail(ok.error());
    }
    const bool indexed = args_.dict() || args_.is_undefined() || (args_.list() && !tuple());
    if (!keyed_ && !indexed && next_ < count())
      return wrong("the format does not use all of its arguments");
    return make_text(rt_.budget, std::move(out));
  }

private:
  [[nodiscard]] const list_node* tuple() const {
    const auto* l = args_.list();
    return l && l->kind == sequence_kind::tuple ? l : nullptr;
  }
  [[nodiscard]] std::size_t count() const { return tuple() ? tuple()->items.size() : 1; }

  int number() {
    int n = 0;
    for (; at_ < form_.size() && form_[at_] >= '0' && form_[at_] <= '9'; ++at_)
      n = std::min(n * 10 + (form_[at_] - '0'), width_max);
    return n;
  }

  result<spec> read_spec() {
    spec s;
    if (at_ < form_.size() && form_[at_] == '(') {
      const auto close = form_.find(')', at_);
      if (close == form_.npos)
        return wrong("the format lacks a ')'");
      s.key = form_.substr(at_ + 1, close - at_ - 1);
      s.keyed = keyed_ = true;
      at_ = close + 1;
    }
    for (; at_ < form_.size() && std::string_view("-0+ #").find(form_[at_]) != form_.npos; ++at_) {
      s.left = s.left || form_[at_] == '-';
      s.zero = s.zero || form_[at_] == '0';
      s.plus = s.plus || form_[at_] == '+';
      s.space = s.space || form_[at_] == ' ';
    }
    s.width = number();
    if (at_ < form_.size() && form_[at_] == '.') {
      ++at_;
      s.precision = std::min(number(), 500);
    }
    if (at_ >= form_.size())
      return wrong("the format is incomplete");
    s.kind = form_[at_++];
    return s;
  }

  result<value> argument(const spec& s) {
    if (s.keyed) {
      const auto* found = args_.dict() ? args_.dict()->find(s.key) : nullptr;
      return found ? *found : result<value>(wrong(fmt::format("the format needs '{}'", s.key)));
    }
    if (next_ >= count())
      return wrong("the format needs more arguments");
    ++next_;
    return tuple() ? tuple()->items[next_ - 1] : args_;
  }

  result<std::string> one() {
    auto s = read_spec();
    if (!s)
      return fail(s.error());
    if (s->kind == '%')
      return std::string("%");
    if (std::string_view("sradiuxXofFeg").find(s->kind) == std::string_view::npos)
      return wrong(fmt::format("the format does not know %{}", s->kind));
    auto v = argument(*s);
    if (!v)
      return fail(v.error());
    if (s->kind != 's' && s->kind != 'r' && s->kind != 'a') {
      auto text = number_text(*s, *v);
      return text ? padded(*s, std::move(*text), true) : text;
    }
    auto text = s->kind == 's' ? to_text(rt_, *v) : repr(rt_, *v);
    if (text && s->precision >= 0)
      text->resize(byte_of(*text, static_cast<std::size_t>(s->precision)));
    return text ? padded(*s, std::move(*text), false) : text;
  }

  runtime& rt_;
  std::string_view form_;
  const value& args_;
  std::size_t at_ = 0, next_ = 0;
  bool keyed_ = false;
};

} // namespace

result<value> percent_format(runtime& rt, std::string_view form, const value& args) {
  return formatter(rt, form, args).run();
}

} // namespace troupe::engine::jinja
