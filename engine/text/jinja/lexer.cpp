#include "engine/text/jinja/lexer.hpp"

#include <fmt/format.h>

#include "engine/text/jinja/utf8.hpp"

namespace troupe::engine::jinja {

namespace {

/// One newline for each of the three kinds, and none at the very end.
std::string normalize_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r' && i + 1 < source.size() && source[i + 1] == '\n')
      continue;
    out += source[i] == '\r' ? '\n' : source[i];
  }
  if (!out.empty() && out.back() == '\n')
    out.pop_back();
  return out;
}

bool is_name_char(code_point c) {
  return c.value == '_' || (c.value < 0x80 && (is_alpha(c.value) || is_digit(c.value))) ||
         (c.value >= 0x80 && c.bytes > 1 && is_alpha(c.value));
}

bool is_decimal(char c) { return c >= '0' && c <= '9'; }

int hex_digit(char c) {
  if (is_decimal(c))
    return c - '0';
  const char l = static_cast<char>(c | 0x20);
  return l >= 'a' && l <= 'f' ? l - 'a' + 10 : -1;
}

/// The sign that may stand at the inner side of a delimiter: '-', '+' or none (0).
char sign_at(std::string_view s, std::size_t at) {
  return at < s.size() && (s[at] == '-' || s[at] == '+') ? s[at] : '\0';
}

class lexer {
public:
  lexer(std::string source, std::string_view name) : source_(std::move(source)), name_(name) {}

  result<std::vector<token>> run() {
    while (pos_ < source_.size())
      if (auto ok = next_tag(); !ok)
        return fail(ok.error());
    add(token_kind::end, "");
    return std::move(tokens_);
  }

private:
  [[nodiscard]] tl::unexpected<error> broken(std::string_view what) const {
    return fail(errc::corrupt_data, located(name_, line_, what));
  }

  void add(token_kind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  /// Moves to `to`, counting the lines passed.
  void advance(std::size_t to) {
    for (; pos_ < to; ++pos_)
      line_ += source_[pos_] == '\n';
    line_starting_ = to > 0 && source_[to - 1] == '\n';
  }

  void skip_space() {
    const std::string_view rest = std::string_view(source_).substr(pos_);
    const auto stripped = strip_left(rest);
    if (stripped.size() != rest.size())
      advance(source_.size() - stripped.size());
  }

  /// Emits the text before a tag, without what the tag's sign or lstrip_blocks takes from its end.
  void add_data(std::string_view text, char sign, bool variable) {
    if (sign == '-') {
      text = strip_right(text);
    } else if (sign != '+' && !variable) {
      const auto newline = text.rfind('\n');
      const std::size_t start = newline == std::string_view::npos ? 0 : newline + 1;
      if ((start > 0 || line_starting_) && strip_left(text.substr(start)).empty())
        text = text.substr(0, start);
    }
    if (!text.empty())
      add(token_kind::data, std::string(text));
  }

  result<void> next_tag() {
    const std::string_view s = source_;
    std::size_t at = s.find('{', pos_);
    while (at != s.npos &&
           (at + 1 >= s.size() || std::string_view("%{#").find(s[at + 1]) == s.npos))
      at = s.find('{', at + 1);
    if (at == s.npos) {
      add(token_kind::data, source_.substr(pos_));
      advance(source_.size());
      return {};
    }
    const char tag = s[at + 1];
    const char sign = sign_at(s, at + 2);
    add_data(s.substr(pos_, at - pos_), sign, tag == '{');
    advance(at);
    if (tag == '#')
      return skip_comment();
    if (tag == '%')
      if (const auto body = after_word(at, "raw"); body != s.npos)
        return read_raw(body);
    add(tag == '%' ? token_kind::block_begin : token_kind::variable_begin, "");
    advance(at + 2 + (sign ? 1 : 0));
    return read_tag(tag == '%');
  }

  /// Where the tag `{% word %}` that begins at `at` ends; npos where another tag stands there.
  [[nodiscard]] std::size_t after_word(std::size_t at, std::string_view word) {
    const std::string_view s = source_;
    std::size_t i = at + 2 + (sign_at(s, at + 2) ? 1 : 0);
    i = s.size() - strip_left(s.substr(i)).size();
    if (s.substr(i, word.size()) != word)
      return s.npos;
    i = s.size() - strip_left(s.substr(i + word.size())).size();
    const char sign = sign_at(s, i);
    const bool ends_raw = word == "endraw";
    if (sign == '+' && !ends_raw)
      return s.npos;
    i += sign ? 1 : 0;
    if (s.substr(i, 2) != "%}")
      return s.npos;
    i += 2;
    if (sign == '-')
      return s.size() - strip_left(s.substr(i)).size();
    return ends_raw && !sign && i < s.size() && s[i] == '\n' ? i + 1 : i;
  }

  result<void> read_raw(std::size_t body) {
    const std::string_view s = source_;
    advance(body);
    for (std::size_t at = s.find("{%", body); at != s.npos; at = s.find("{%", at + 2)) {
      const auto after = after_word(at, "endraw");
      if (after == s.npos)
        continue;
      add_data(s.substr(body, at - body), sign_at(s, at + 2), false);
      advance(after);
      return {};
    }
    return broken("missing end of raw block: add {% endraw %}");
  }

  result<void> skip_comment() {
    const std::string_view s = source_;
    const auto close = s.find("#}", pos_ + 2);
    if (close == s.npos)
      return broken("missing end of comment: add #}");
    const char sign = close > pos_ + 2 ? sign_at(s, close - 1) : '\0';
    end_tag(close + 2, sign, true);
    return {};
  }

  /// Ends a tag at `to`: '-' takes the white space after it, trim_blocks one newline.
  void end_tag(std::size_t to, char sign, bool trims) {
    advance(to);
    if (sign == '-')
      skip_space();
    else if (sign != '+' && trims && to < source_.size() && source_[to] == '\n')
      advance(to + 1);
  }

  /// Reads the tokens of one tag up to and including its end.
  result<void> read_tag(bool block) {
    const std::string_view s = source_;
    const std::string_view close = block ? "%}" : "}}";
    brackets_.clear();
    while (true) {
      skip_space();
      if (pos_ >= s.size())
        return broken(fmt::format("unexpected end of template: the tag lacks its {}", close));
      const char sign = sign_at(s, pos_);
      const bool signed_end =
          (sign == '-' || (sign == '+' && block)) && s.substr(pos_ + 1, 2) == close;
      if (brackets_.empty() && (signed_end || s.substr(pos_, 2) == close)) {
        add(block ? token_kind::block_end : token_kind::variable_end, "");
        end_tag(pos_ + 2 + (signed_end ? 1 : 0), signed_end ? sign : '\0', block);
        return {};
      }
      if (auto ok = read_token(); !ok)
        return ok;
    }
  }

  result<void> read_token() {
    const char c = source_[pos_];
    if (is_decimal(c))
      return read_number();
    if (c == '\'' || c == '"')
      return read_text(c);
    std::size_t at = pos_;
    while (at < source_.size() && is_name_char(decode(source_, at)))
      at += decode(source_, at).bytes;
    if (at == pos_)
      return read_symbol();
    add(token_kind::name, source_.substr(pos_, at - pos_));
    advance(at);
    return {};
  }

  /// Digits with single underscores between them, which are left out of what is returned.
  std::string digits(std::size_t& at, int base) const {
    std::string out;
    while (at < source_.size()) {
      const std::size_t skip = source_[at] == '_' && !out.empty() ? 1 : 0;
      const int digit = at + skip < source_.size() ? hex_digit(source_[at + skip]) : -1;
      if (digit < 0 || digit >= base)
        break;
      out += source_[at + skip];
      at += skip + 1;
    }
    return out;
  }

  result<void> read_number() {
    std::size_t at = pos_;
    if (source_[at] == '0' && at + 1 < source_.size()) {
      const char mark = static_cast<char>(source_[at + 1] | 0x20);
      const int base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
      std::size_t from = at + 2;
      const std::string found = base ? digits(from, base) : "";
      if (!found.empty())
        return add_integer(found, base, from);
    }
    std::string text = digits(at, 10);
    const bool after_dot = pos_ > 0 && source_[pos_ - 1] == '.';
    bool floating = false;
    if (!after_dot && at + 1 < source_.size() && source_[at] == '.' &&
        is_decimal(source_[at + 1])) {
      ++at;
      text += '.' + digits(at, 10);
      floating = true;
    }
    if (!after_dot && at < source_.size() && (source_[at] | 0x20) == 'e') {
      std::size_t from = at + 1;
      const char sign = sign_at(source_, from);
      from += sign ? 1 : 0;
      if (const auto exponent = digits(from, 10); !exponent.empty()) {
        text += std::string("e") + (sign ? sign : '+') + exponent;
        at = from;
        floating = true;
      }
    }
    if (!floating)
      return add_integer(text, 10, at);
    add(token_kind::floating, std::move(text));
    advance(at);
    return {};
  }

  result<void> add_integer(const std::string& text, int base, std::size_t to) {
    std::int64_t n = 0;
    for (const char c : text)
      if (__builtin_mul_overflow(n, std::int64_t{base}, &n) ||
          __builtin_add_overflow(n, std::int64_t{hex_digit(c)}, &n))
        return broken("an integer that does not fit 64 bits");
    add(token_kind::integer, fmt::format("{}", n));
    advance(to);
    return {};
  }

  result<void> read_text(char quote) {
    std::string out;
    std::size_t at = pos_ + 1;
    while (at < source_.size() && source_[at] != quote) {
      if (source_[at] == '\\' && at + 1 < source_.size())
        at = read_escape(at + 1, out);
      else
        out += source_[at++];
    }
    if (at >= source_.size())
      return broken(fmt::format("a text lacks its closing {}", quote));
    add(token_kind::text, std::move(out));
    advance(at + 1);
    return {};
  }

  /// Appends what the escape after a backslash at `at` means; returns where it ends.
  std::size_t read_escape(std::size_t at, std::string& out) const {
    static constexpr std::string_view letters = "ntrabfv\\'\"", meanings = "\n\t\r\a\b\f\v\\'\"";
    const char c = source_[at];
    if (c == '\n')
      return at + 1;
    if (c >= '0' && c <= '7') {
      char32_t code = 0;
      const std::size_t last = at + 3;
      for (; at < last && at < source_.size() && source_[at] >= '0' && source_[at] <= '7'; ++at)
        code = code * 8 + static_cast<char32_t>(source_[at] - '0');
      append_utf8(out, code);
      return at;
    }
    if (const std::size_t size = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0; size > 0) {
      std::uint64_t code = 0;
      std::size_t i = 1;
      for (; i <= size && at + i < source_.size() && hex_digit(source_[at + i]) >= 0; ++i)
        code = code * 16 + static_cast<std::uint64_t>(hex_digit(source_[at + i]));
      if (i > size && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff)) {
        append_utf8(out, static_cast<char32_t>(code));
        return at + i;
      }
    }
    if (const auto i = letters.find(c); i != letters.npos) {
      out += meanings[i];
      return at + 1;
    }
    out += '\\';
    out += c;
    return at + 1;
  }

  result<void> read_symbol() {
    static constexpr std::string_view symbols[] = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    const std::string_view rest = std::string_view(source_).substr(pos_);
    for (const auto symbol : symbols) {
      if (rest.substr(0, symbol.size()) != symbol)
        continue;
      if (auto ok = balance(symbol[0]); !ok)
        return ok;
      add(token_kind::symbol, std::string(symbol));
      advance(pos_ + symbol.size());
      return {};
    }
    const auto c = decode(source_, pos_);
    return broken(fmt::format("unexpected character '{}'", rest.substr(0, c.bytes)));
  }

  result<void> balance(char c) {
    static constexpr std::string_view open = "([{", shut = ")]}";
    if (open.find(c) != open.npos)
      brackets_ += c;
    const auto kind = shut.find(c);
    if (kind == shut.npos)
      return {};
    if (brackets_.empty() || brackets_.back() != open[kind])
      return broken(fmt::format("unexpected '{}'", c));
    brackets_.pop_back();
    return {};
  }

  std::string source_;
  std::string_view name_;
  std::vector<token> tokens_;
  std::string brackets_;
  std::size_t pos_ = 0;
  std::uint32_t line_ = 1;
  bool line_starting_ = true;
};

} // namespace

std::string located(std::string_view name, std::uint32_t line, std::string_view what) {
  return fmt::format("{}:{}: {}", name, line, what);
}

result<std::vector<token>> lex(std::string_view source, std::string_view name) {
  return lexer(normalize_newlines(source), name).run();
}

} // namespace troupe::engine::jinja
