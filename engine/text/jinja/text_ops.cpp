#include "engine/text/jinja/text_ops.hpp"

#include "engine/text/jinja/ops.hpp"
#include "engine/text/jinja/utf8.hpp"

namespace troupe::engine::jinja {

namespace {

/// Makes each letter large where `starts` says that the character before it begins a word.
template <class Starts>
std::string with_capitals(std::string_view text, std::string (*large)(std::string_view),
                          Starts starts) {
  std::string out;
  char32_t before = ' ';
  for (std::size_t at = 0; at < text.size();) {
    const auto c = decode(text, at);
    const auto one = text.substr(at, c.bytes);
    out += starts(before, at) ? large(one) : lower(one);
    before = c.value;
    at += c.bytes;
  }
  return out;
}

/// The large form of a letter at the head of a word: only the first of two becomes large.
std::string title_form(std::string_view one) {
  auto out = upper(one);
  return out == "SS" ? "Ss" : out;
}

} // namespace

std::string capitalized(std::string_view text) {
  return with_capitals(text, title_form, [](char32_t, std::size_t at) { return at == 0; });
}

std::string title_method(std::string_view text) {
  return with_capitals(text, title_form,
                       [](char32_t before, std::size_t) { return !is_alpha(before); });
}

std::string title_filter(std::string_view text) {
  return with_capitals(text, upper, [](char32_t before, std::size_t) {
    return is_space(before) || before == '-' || before == '(' || before == '{' || before == '[' ||
           before == '<';
  });
}

std::string_view strip_set(std::string_view text, std::string_view set, bool left, bool right) {
  const auto inside = [&](std::string_view one) { return find_text(set, one) != set.npos; };
  while (left && !text.empty()) {
    const auto bytes = decode(text, 0).bytes;
    if (!inside(text.substr(0, bytes)))
      break;
    text.remove_prefix(bytes);
  }
  while (right && !text.empty()) {
    std::size_t at = text.size() - 1;
    while (at > 0 && text.size() - at < 4 && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80)
      --at;
    if (at + decode(text, at).bytes != text.size())
      at = text.size() - 1;
    if (!inside(text.substr(at)))
      break;
    text.remove_suffix(text.size() - at);
  }
  return text;
}

result<value> replace_text(runtime& rt, std::string_view text, const replacement& r) {
  std::string out;
  std::size_t at = 0;
  for (auto left = r.count; left != 0; --left) {
    const auto hit = find_text(text, r.from, at);
    if (hit == text.npos)
      break;
    // An empty text is found before every character and at the end.
    const bool empty = r.from.empty();
    const std::size_t step = empty && at < text.size() ? decode(text, at).bytes : 0;
    auto ok = append(rt, out, text.substr(at, hit - at));
    if (ok)
      ok = append(rt, out, r.to);
    if (ok)
      ok = append(rt, out, text.substr(hit, step));
    if (!ok)
      return fail(ok.error());
    at = hit + (empty ? step : r.from.size());
    if (empty && step == 0)
      return make_text(rt.budget, std::move(out));
  }
  if (auto ok = append(rt, out, text.substr(at)); !ok)
    return fail(ok.error());
  return make_text(rt.budget, std::move(out));
}

} // namespace troupe::engine::jinja
