#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "engine/text/jinja/ops.hpp"
#include "engine/text/jinja/text_ops.hpp"
#include "engine/text/jinja/utf8.hpp"

namespace troupe::engine::jinja {

namespace {

const std::string& self(const call_site& c) { return *c.self.text(); }

template <std::string (*F)(std::string_view)>
result<value> mapped(const call_site& c) {
  return make_text(c.rt.budget, F(self(c)));
}

template <bool Left, bool Right>
result<value> strip(const call_site& c) {
  std::string_view text = self(c);
  if (c.args[0] && !c.args[0]->is_none()) {
    auto set = c.text(0, "");
    if (!set)
      return fail(set.error());
    return make_text(c.rt.budget, std::string(strip_set(text, *set, Left, Right)));
  }
  text = Left ? strip_left(text) : text;
  text = Right ? strip_right(text) : text;
  return make_text(c.rt.budget, std::string(text));
}

/// Collects the pieces of a split, each charged as it is made.
class pieces {
public:
  explicit pieces(runtime& rt) : rt_(rt) {}

  [[nodiscard]] bool add(std::string_view piece) {
    auto made = make_text(rt_.budget, std::string(piece));
    const auto spent = rt_.budget.spend(1);
    if (!made || !spent) {
      error_ = made ? spent.error() : made.error();
      return false;
    }
    items_.push_back(std::move(*made));
    return true;
  }

  result<value> finish(bool reversed) {
    if (error_)
      return fail(*error_);
    if (reversed)
      std::reverse(items_.begin(), items_.end());
    return make_list(rt_.budget, std::move(items_));
  }

private:
  runtime& rt_;
  std::vector<value> items_;
  std::optional<error> error_;
};

result<value> split_at_spaces(runtime& rt, std::string_view text, std::int64_t most, bool right) {
  pieces out(rt);
  for (text = right ? strip_right(text) : strip_left(text); !text.empty(); --most) {
    if (most == 0) {
      if (!out.add(right ? strip_right(text) : text))
        break;
      return out.finish(right);
    }
    std::size_t from = 0, to = 0;
    if (right) {
      from = text.size();
      while (from > 0 && strip_right(text.substr(0, from)).size() == from)
        --from;
      to = text.size();
    } else {
      while (to < text.size() && strip_left(text.substr(to)).size() == text.size() - to)
        to += decode(text, to).bytes;
    }
    if (!out.add(text.substr(from, to - from)))
      break;
    text = right ? strip_right(text.substr(0, from)) : strip_left(text.substr(to));
  }
  return out.finish(right);
}

result<value> split_at(runtime& rt, std::string_view text, std::string_view between,
                       std::int64_t most) {
  pieces out(rt);
  for (auto hit = find_text(text, between); hit != text.npos && most != 0; --most) {
    if (!out.add(text.substr(0, hit)))
      return out.finish(false);
    text = text.substr(hit + between.size());
    hit = find_text(text, between);
  }
  (void)out.add(text);
  return out.finish(false);
}

result<value> split_at_right(runtime& rt, std::string_view text, std::string_view between,
                             std::int64_t most) {
  // rfind compares at every place, so the work is charged before.
  std::size_t work = 0;
  if (__builtin_mul_overflow(text.size(), between.size(), &work))
    work = static_cast<std::size_t>(-1);
  if (auto ok = rt.budget.spend(work / 512); !ok)
    return fail(ok.error());
  pieces out(rt);
  for (auto hit = text.rfind(between); hit != text.npos && most != 0; --most) {
    if (!out.add(text.substr(hit + between.size())))
      return out.finish(true);
    text = text.substr(0, hit);
    hit = text.rfind(between);
  }
  (void)out.add(text);
  return out.finish(true);
}

template <bool Right>
result<value> split(const call_site& c) {
  auto most = c.integer(1, -1);
  if (!most)
    return fail(most.error());
  if (!c.args[0] || c.args[0]->is_none())
    return split_at_spaces(c.rt, self(c), *most, Right);
  auto between = c.text(0, "");
  if (!between)
    return fail(between.error());
  if (between->empty())
    return wrong("split needs a separator that is not empty");
  return Right ? split_at_right(c.rt, self(c), *between, *most)
               : split_at(c.rt, self(c), *between, *most);
}

result<value> split_lines(const call_site& c) {
  const bool keep = c.flag(0, false);
  pieces out(c.rt);
  std::string_view text = self(c);
  while (!text.empty()) {
    std::size_t at = 0, end = 0;
    for (; at < text.size() && end == 0; at += end ? 0 : decode(text, at).bytes) {
      const auto ch = decode(text, at);
      const bool wide =
          ch.bytes > 1 && (ch.value == 0x85 || ch.value == 0x2028 || ch.value == 0x2029);
      const bool narrow =
          (ch.value >= 10 && ch.value <= 13) || (ch.value >= 0x1c && ch.value <= 0x1e);
      end = wide || narrow ? ch.bytes : 0;
      if (ch.value == '\r' && at + 1 < text.size() && text[at + 1] == '\n')
        end = 2;
      if (end)
        break;
    }
    if (!out.add(text.substr(0, at + (keep ? end : 0))))
      break;
    text = text.substr(at + end);
  }
  return out.finish(false);
}

/// Whether the text begins (or ends) with the argument, or with one of a tuple.
template <bool End>
result<value> begins(const call_site& c) {
  const auto fits = [&](const value& v) {
    const auto* t = v.text();
    const std::string_view s = self(c);
    return t && (End ? s.ends_with(*t) : s.starts_with(*t));
  };
  const auto* many = c.args[0]->list();
  if (many && many->kind == sequence_kind::tuple)
    return make_bool(std::any_of(many->items.begin(), many->items.end(), fits));
  if (!c.args[0]->text())
    return wrong(
        fmt::format("a text or a tuple of texts is needed, not {}", type_name(*c.args[0])));
  return make_bool(fits(*c.args[0]));
}

result<value> replace(const call_site& c) {
  auto from = c.text(0, ""), to = c.text(1, "");
  auto count = c.integer(2, -1);
  if (!from || !to || !count)
    return fail(!from ? from.error() : !to ? to.error() : count.error());
  return replace_text(c.rt, self(c), {*from, *to, *count});
}

template <bool Right>
result<value> find(const call_site& c) {
  auto needle = c.text(0, "");
  auto from = c.integer(1, 0);
  if (!needle || !from)
    return fail(needle ? from.error() : needle.error());
  std::string_view text = self(c);
  const auto size = static_cast<std::int64_t>(count_characters(text));
  if (*from > size)
    return make_int(-1);
  const auto skip = std::max<std::int64_t>(0, *from < 0 ? *from + size : *from);
  const auto start = byte_of(text, static_cast<std::size_t>(skip));
  if (auto ok = c.rt.budget.spend(Right ? text.size() / 512 * (1 + needle->size() / 16) : 1); !ok)
    return fail(ok.error());
  auto hit = Right ? text.rfind(*needle) : find_text(text, *needle, start);
  if (hit == text.npos || hit < start)
    return make_int(-1);
  return make_int(static_cast<std::int64_t>(count_characters(text.substr(0, hit))));
}

result<value> count(const call_site& c) {
  auto needle = c.text(0, "");
  if (!needle)
    return fail(needle.error());
  std::string_view text = self(c);
  if (needle->empty())
    return make_int(static_cast<std::int64_t>(count_characters(text)) + 1);
  std::int64_t n = 0;
  for (auto at = find_text(text, *needle); at != text.npos;
       at = find_text(text, *needle, at + needle->size()))
    ++n;
  return make_int(n);
}

result<value> join(const call_site& c) {
  auto items = iterate(c.rt, *c.args[0]);
  if (!items)
    return fail(items.error());
  std::string out;
  for (std::size_t i = 0; i < (*items)->items.size(); ++i) {
    const auto* text = (*items)->items[i].text();
    if (!text)
      return wrong(fmt::format("join needs texts, not {}", type_name((*items)->items[i])));
    auto ok = append(c.rt, out, i > 0 ? std::string_view(self(c)) : std::string_view());
    if (ok)
      ok = append(c.rt, out, *text);
    if (!ok)
      return fail(ok.error());
  }
  return make_text(c.rt.budget, std::move(out));
}

template <bool (*Each)(char32_t)>
result<value> every(const call_site& c) {
  const auto& text = self(c);
  bool all = !text.empty();
  for (std::size_t at = 0; at < text.size() && all;) {
    const auto one = decode(text, at);
    all = Each(one.value);
    at += one.bytes;
  }
  return make_bool(all);
}

bool is_alnum(char32_t c) { return is_alpha(c) || is_digit(c); }

template <bool Start>
result<value> without(const call_site& c) {
  auto part = c.text(0, "");
  if (!part)
    return fail(part.error());
  std::string_view text = self(c);
  if (Start && text.starts_with(*part))
    text.remove_prefix(part->size());
  if (!Start && text.ends_with(*part))
    text.remove_suffix(part->size());
  return make_text(c.rt.budget, std::string(text));
}

/// The text before the first (or last) separator, the separator, and the text after it.
template <bool Last>
result<value> partition(const call_site& c) {
  auto between = c.text(0, "");
  if (!between)
    return fail(between.error());
  if (between->empty())
    return wrong("partition needs a separator that is not empty");
  const std::string_view text = self(c);
  if (auto ok = c.rt.budget.spend(Last ? text.size() / 512 * (1 + between->size() / 16) : 1); !ok)
    return fail(ok.error());
  const auto hit = Last ? text.rfind(*between) : find_text(text, *between);
  std::array<std::string_view, 3> parts{text, "", ""};
  if (hit != text.npos)
    parts = {text.substr(0, hit), *between, text.substr(hit + between->size())};
  else if (Last)
    parts = {"", "", text};
  std::vector<value> out;
  for (const auto part : parts) {
    auto made = make_text(c.rt.budget, std::string(part));
    if (!made)
      return made;
    out.push_back(std::move(*made));
  }
  return make_list(c.rt.budget, std::move(out), sequence_kind::tuple);
}

/// Zeros between the sign and the rest, up to a width.
result<value> zero_fill(const call_site& c) {
  auto width = c.integer(0, 0);
  if (!width)
    return fail(width.error());
  std::string text = self(c);
  const auto missing = *width - static_cast<std::int64_t>(count_characters(text));
  if (missing <= 0)
    return make_text(c.rt.budget, std::move(text));
  if (auto ok = c.rt.budget.room(static_cast<std::size_t>(missing) + text.size()); !ok)
    return fail(ok.error());
  const bool sign = !text.empty() && (text[0] == '-' || text[0] == '+');
  text.insert(sign ? 1 : 0, static_cast<std::size_t>(missing), '0');
  return make_text(c.rt.budget, std::move(text));
}

constexpr builtin rows[] = {
    {"capitalize", "", 0, mapped<capitalized>},
    {"count", "sub", 1, count},
    {"endswith", "suffix", 1, begins<true>},
    {"find", "sub start", 1, find<false>},
    {"isalnum", "", 0, every<is_alnum>},
    {"isalpha", "", 0, every<is_alpha>},
    {"isdigit", "", 0, every<is_digit>},
    {"isspace", "", 0, every<is_space>},
    {"join", "iterable", 1, join},
    {"lower", "", 0, mapped<lower>},
    {"lstrip", "chars", 0, strip<true, false>},
    {"partition", "sep", 1, partition<false>},
    {"removeprefix", "prefix", 1, without<true>},
    {"removesuffix", "suffix", 1, without<false>},
    {"replace", "old new count", 2, replace},
    {"rfind", "sub start", 1, find<true>},
    {"rpartition", "sep", 1, partition<true>},
    {"rsplit", "sep maxsplit", 0, split<true>},
    {"rstrip", "chars", 0, strip<false, true>},
    {"split", "sep maxsplit", 0, split<false>},
    {"splitlines", "keepends", 0, split_lines},
    {"startswith", "prefix", 1, begins<false>},
    {"strip", "chars", 0, strip<true, true>},
    {"title", "", 0, mapped<title_method>},
    {"upper", "", 0, mapped<upper>},
    {"zfill", "width", 1, zero_fill},
};

} // namespace

std::span<const builtin> text_methods() { return rows; }

} // namespace troupe::engine::jinja
