#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "engine/text/jinja/ops.hpp"
#include "engine/text/jinja/utf8.hpp"

namespace troupe::engine::jinja {

namespace {

void append_escaped(std::string& out, char32_t c, char quote) {
  if (c == static_cast<char32_t>(quote) || c == '\\')
    (out += '\\') += static_cast<char>(c);
  else if (c == '\n')
    out += "\\n";
  else if (c == '\r')
    out += "\\r";
  else if (c == '\t')
    out += "\\t";
  else if (is_printable(c))
    append_utf8(out, c);
  else if (c < 0x100)
    out += fmt::format("\\x{:02x}", static_cast<unsigned>(c));
  else if (c < 0x10000)
    out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
  else
    out += fmt::format("\\U{:08x}", static_cast<unsigned>(c));
}

std::string quoted(std::string_view text) {
  const bool single = text.find('\'') != text.npos && text.find('"') == text.npos;
  const char quote = single ? '"' : '\'';
  std::string out(1, quote);
  for (std::size_t at = 0; at < text.size();) {
    const auto c = decode(text, at);
    append_escaped(out, c.value, quote);
    at += c.bytes;
  }
  return out += quote;
}

class printer {
public:
  explicit printer(runtime& rt) : rt_(rt) {}

  result<void> print(const value& v) {
    if (auto ok = rt_.budget.spend(1); !ok)
      return ok;
    if (const auto* t = v.get<text_ptr>())
      return append(rt_, out,
                    (*t)->markup ? "Markup(" + quoted((*t)->text) + ")" : quoted((*t)->text));
    if (const auto* l = v.list())
      return print_list(*l);
    if (const auto* d = v.dict())
      return print_entries(d->entries, "{", "}");
    if (const auto* o = v.obj())
      return print_object(*o);
    return append(rt_, out, scalar(v));
  }

  std::string out;

private:
  static std::string scalar(const value& v) {
    if (v.is_none())
      return "None";
    if (v.is_undefined())
      return "Undefined";
    if (const auto* b = v.get<bool>())
      return *b ? "True" : "False";
    if (const auto* i = v.get<std::int64_t>())
      return fmt::format("{}", *i);
    if (const auto* d = v.get<double>())
      return float_text(*d);
    if (const auto* row = v.get<const builtin*>())
      return fmt::format("<function {}>", (*row)->name);
    if (const auto* m = v.get<method_ptr>())
      return fmt::format("<built-in method {} of {} object>", (*m)->row->name,
                         type_name((*m)->self));
    return "";
  }

  result<void> print_list(const list_node& l) {
    if (l.kind == sequence_kind::range || l.kind == sequence_kind::generator)
      return append(rt_, out, l.label);
    const bool tuple = l.kind == sequence_kind::tuple || l.kind == sequence_kind::group;
    out += l.label;
    out += l.kind == sequence_kind::view ? "([" : tuple ? "(" : "[";
    for (std::size_t i = 0; i < l.items.size(); ++i) {
      out += i > 0 ? ", " : "";
      if (auto ok = print(l.items[i]); !ok)
        return ok;
    }
    out += tuple && l.items.size() == 1 ? "," : "";
    out += l.kind == sequence_kind::view ? "])" : tuple ? ")" : "]";
    return {};
  }

  template <class Entries>
  result<void> print_entries(const Entries& entries, std::string_view open, std::string_view shut) {
    out += open;
    bool first = true;
    for (const auto& [key, item] : entries) {
      out += first ? "" : ", ";
      first = false;
      if (auto ok = print_key(key); !ok)
        return ok;
      out += ": ";
      if (auto ok = print(item); !ok)
        return ok;
    }
    return append(rt_, out, shut);
  }

  result<void> print_key(const value& key) { return print(key); }
  result<void> print_key(const std::string& key) { return append(rt_, out, quoted(key)); }

  result<void> print_object(const object& o) {
    if (o.kind != object_kind::name_space)
      return append(rt_, out, fmt::format("<{}>", type_name(value{const_cast<object*>(&o)})));
    if (++depth_ > rt_.budget.bounds().value_depth_max)
      return fail(errc::limit_exceeded, "a namespace that holds itself cannot be printed");
    auto ok = print_entries(static_cast<const name_space&>(o).fields, "<Namespace {", "}>");
    --depth_;
    return ok;
  }

  runtime& rt_;
  std::uint32_t depth_ = 0;
};

} // namespace

std::string float_text(double d) {
  if (std::isnan(d))
    return "nan";
  if (std::isinf(d))
    return d > 0 ? "inf" : "-inf";
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::scientific);
  const std::string_view text(buffer, static_cast<std::size_t>(end.ptr - buffer));
  const auto e = text.find('e');
  int exponent = 0;
  std::from_chars(text.data() + e + (text[e + 1] == '+' ? 2 : 1), text.data() + text.size(),
                  exponent);
  const bool negative = text[0] == '-';
  std::string digits;
  for (const char c : text.substr(0, e))
    if (c != '-' && c != '.')
      digits += c;
  std::string out = negative ? "-" : "";
  const int count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    const std::string rest = count > 1 ? "." + digits.substr(1) : "";
    return out + digits[0] + rest +
           fmt::format("e{}{:02}", exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0)
    return out + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  if (count <= exponent + 1)
    return out + digits + std::string(static_cast<std::size_t>(exponent + 1 - count), '0') + ".0";
  const auto whole = static_cast<std::size_t>(exponent + 1);
  return out + digits.substr(0, whole) + "." + digits.substr(whole);
}

result<void> append(runtime& rt, std::string& out, std::string_view more) {
  if (auto ok = rt.budget.spend(more.size() / 512); !ok)
    return ok;
  if (out.size() + more.size() > rt.budget.bounds().text_bytes_max)
    return fail(errc::limit_exceeded, "the template makes a longer text than allowed");
  out += more;
  return {};
}

result<std::string> repr(runtime& rt, const value& v) {
  printer p(rt);
  if (auto ok = p.print(v); !ok)
    return fail(ok.error());
  return std::move(p.out);
}

result<std::string> to_text(runtime& rt, const value& v) {
  if (const auto* t = v.text())
    return *t;
  if (v.is_undefined())
    return std::string();
  return repr(rt, v);
}

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    switch (c) {
    case '&':
      out += "&amp;";
      break;
    case '<':
      out += "&lt;";
      break;
    case '>':
      out += "&gt;";
      break;
    case '"':
      out += "&#34;";
      break;
    case '\'':
      out += "&#39;";
      break;
    default:
      out += c;
    }
  }
  return out;
}

} // namespace troupe::engine::jinja
