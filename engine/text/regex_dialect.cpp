#include "engine/text/regex_dialect.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <utility>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace troupe::engine::text {

namespace {

using named = std::pair<std::string_view, std::string_view>;

constexpr std::string_view word_set = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";

/// POSIX names inside a class, without their negated forms.
constexpr std::array posix_classes{named{"alpha", R"(\p{Alphabetic})"},
                                   named{"digit", R"(\p{Nd})"},
                                   named{"alnum", R"(\p{Alphabetic}\p{Nd})"},
                                   named{"upper", R"(\p{Uppercase})"},
                                   named{"lower", R"(\p{Lowercase})"},
                                   named{"space", R"(\p{White_Space})"},
                                   named{"punct", "[:punct:]"},
                                   named{"xdigit", "0-9A-Fa-f"},
                                   named{"word", word_set},
                                   named{"cntrl", R"(\p{Cc})"}};

/// Long names of general categories, which PCRE2 knows only by their letters.
constexpr std::array long_categories{named{"Letter", "L"},
                                     named{"Mark", "M"},
                                     named{"Number", "N"},
                                     named{"Punctuation", "P"},
                                     named{"Symbol", "S"},
                                     named{"Separator", "Z"},
                                     named{"Other", "C"},
                                     named{"Uppercase_Letter", "Lu"},
                                     named{"Lowercase_Letter", "Ll"},
                                     named{"Titlecase_Letter", "Lt"},
                                     named{"Modifier_Letter", "Lm"},
                                     named{"Other_Letter", "Lo"},
                                     named{"Nonspacing_Mark", "Mn"},
                                     named{"Spacing_Mark", "Mc"},
                                     named{"Enclosing_Mark", "Me"},
                                     named{"Decimal_Number", "Nd"},
                                     named{"Letter_Number", "Nl"},
                                     named{"Other_Number", "No"},
                                     named{"Connector_Punctuation", "Pc"},
                                     named{"Dash_Punctuation", "Pd"},
                                     named{"Math_Symbol", "Sm"},
                                     named{"Currency_Symbol", "Sc"},
                                     named{"Space_Separator", "Zs"},
                                     named{"Control", "Cc"},
                                     named{"Format", "Cf"}};

template <std::size_t N>
std::optional<std::string_view> look_up(const std::array<named, N>& rows, std::string_view name) {
  const auto* found =
      std::find_if(rows.begin(), rows.end(), [&](const named& row) { return row.first == name; });
  if (found == rows.end())
    return std::nullopt;
  return found->second;
}

bool compiles(const std::string& pattern) {
  int code = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* compiled = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                       PCRE2_UTF | PCRE2_UCP, &code, &offset, nullptr);
  pcre2_code_free(compiled);
  return compiled != nullptr;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }
bool is_alnum(char c) { return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/// Walks over the pattern once and writes its translation.
class translator {
public:
  explicit translator(std::string_view pattern) : in_{pattern} {}

  result<std::string> run() {
    while (at_ < in_.size() && !problem_)
      step();
    if (problem_)
      return fail(*problem_);
    return std::move(out_);
  }

private:
  [[nodiscard]] char peek(std::size_t ahead = 0) const {
    return at_ + ahead < in_.size() ? in_[at_ + ahead] : '\0';
  }

  void refuse(std::string_view what) {
    problem_ =
        error{errc::unsupported,
              fmt::format("the pattern uses {} at offset {}, which is not supported", what, at_)};
    at_ = in_.size();
  }

  void take(std::size_t count) {
    out_ += in_.substr(at_, count);
    at_ += count;
  }

  void put(std::string_view text, std::size_t taken) {
    out_ += text;
    at_ += taken;
  }

  void step() {
    switch (peek()) {
    case '\\':
      return escape(false);
    case '[':
      return char_class();
    case '(':
      return group();
    case '{':
      return interval();
    default:
      return take(1);
    }
  }

  /// An opening parenthesis: only groups that mean the same to both.
  void group() {
    if (peek(1) == '*')
      return refuse("a verb (*...)");
    if (peek(1) != '?')
      return take(1);
    for (const std::string_view head : {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"})
      if (in_.substr(at_, head.size()) == head)
        return take(head.size());
    std::size_t end = 2;
    while (peek(end) == 'i' || peek(end) == '-')
      ++end;
    // An option without a colon reaches over the alternatives that follow it in PCRE2 but not in
    // Oniguruma, except where nothing stands before it.
    const bool scoped = peek(end) == ':';
    const bool leading = peek(end) == ')' && at_ == 0;
    if (end > 2 && (scoped || leading))
      return take(end + 1);
    refuse(fmt::format("the group \"{}\"", in_.substr(at_, 4)));
  }

  /// A brace: a repeat, or a literal brace where it does not read as one.
  void interval() {
    std::size_t end = 1;
    while (is_digit(peek(end)) || peek(end) == ',')
      ++end;
    const std::string_view body = in_.substr(at_ + 1, end - 1);
    const bool repeat = peek(end) == '}' && std::any_of(body.begin(), body.end(), is_digit) &&
                        std::count(body.begin(), body.end(), ',') <= 1;
    if (!repeat)
      return put("\\{", 1);
    if (peek(end + 1) == '+' || (peek(end + 1) == '?' && body.find(',') == body.npos))
      return refuse("a repeat of a repeat");
    if (body.front() == ',')
      out_ += fmt::format("{{0{}}}", body);
    else
      out_ += fmt::format("{{{}}}", body);
    at_ += end + 1;
  }

  void escape(bool in_class) {
    const char name = peek(1);
    if (at_ + 1 >= in_.size())
      return refuse("a backslash at its end");
    if (static_cast<unsigned char>(name) >= 0x80)
      return put("", 1);
    if (!is_alnum(name))
      return take(2);
    switch (name) {
    case 'n':
    case 'r':
    case 't':
    case 'f':
    case 'a':
    case 'e':
    case 'd':
    case 'D':
      return take(2);
    case 'v':
      return put("\\x0b", 2);
    case 's':
      return put("\\p{White_Space}", 2);
    case 'S':
      return put("\\P{White_Space}", 2);
    case 'h':
      return put(in_class ? "0-9A-Fa-f" : "[0-9A-Fa-f]", 2);
    case 'p':
    case 'P':
      return property();
    case 'x':
      return hexadecimal();
    case 'u':
      return code_unit();
    default:
      return in_class ? refuse(fmt::format("\\{} in a class", name)) : escape_outside(name);
    }
  }

  void escape_outside(char name) {
    switch (name) {
    case 'w':
      return put(fmt::format("[{}]", word_set), 2);
    case 'W':
      return put(fmt::format("[^{}]", word_set), 2);
    case 'H':
      return put("[^0-9A-Fa-f]", 2);
    case 'b':
      return put(fmt::format("(?:(?<=[{0}])(?![{0}])|(?<![{0}])(?=[{0}]))", word_set), 2);
    case 'A':
    case 'z':
    case 'R':
    case 'X':
      return take(2);
    default:
      return refuse(fmt::format("\\{}", name));
    }
  }

  void hexadecimal() {
    if (peek(2) == '{' || is_hex(peek(2)))
      return take(2);
    refuse("\\x without a number");
  }

  void code_unit() {
    if (!is_hex(peek(2)) || !is_hex(peek(3)) || !is_hex(peek(4)) || !is_hex(peek(5)))
      return refuse("\\u without four hexadecimal digits");
    put(fmt::format("\\x{{{}}}", in_.substr(at_ + 2, 4)), 6);
  }

  void property() {
    if (peek(2) != '{')
      return refuse("\\p without braces");
    const auto end = in_.find('}', at_);
    if (end == in_.npos)
      return refuse("\\p without a closing brace");
    bool negated = peek(1) == 'P';
    std::string_view name = in_.substr(at_ + 3, end - at_ - 3);
    if (name.starts_with('^')) {
      negated = !negated;
      name.remove_prefix(1);
    }
    if (!std::all_of(name.begin(), name.end(), [](char c) { return is_alnum(c) || c == '_'; }))
      return refuse(fmt::format("\\p{{{}}}", name));
    std::string spelled{look_up(long_categories, name).value_or(name)};
    if (compiles(fmt::format("\\p{{sc:{}}}", spelled)))
      spelled.insert(0, "sc:");
    put(fmt::format("\\{}{{{}}}", negated ? 'P' : 'p', spelled), end + 1 - at_);
  }

  void char_class() {
    take(1);
    if (peek() == '^')
      take(1);
    if (peek() == ']')
      put("\\]", 1);
    while (at_ < in_.size() && peek() != ']')
      class_member();
    if (!problem_ && at_ >= in_.size())
      return refuse("a class without an end");
    if (!problem_)
      take(1);
  }

  void class_member() {
    if (peek() == '\\')
      return escape(true);
    if (peek() == '&' && peek(1) == '&')
      return refuse("an intersection of classes");
    if (peek() != '[')
      return take(1);
    const auto end = in_.find(":]", at_);
    const auto known = peek(1) == ':' && end != in_.npos
                           ? look_up(posix_classes, in_.substr(at_ + 2, end - at_ - 2))
                           : std::nullopt;
    if (!known)
      return refuse("a class inside a class");
    put(*known, end + 2 - at_);
  }

  std::string_view in_;
  std::string out_;
  std::size_t at_ = 0;
  std::optional<error> problem_;
};

} // namespace

result<std::string> translate_pattern(std::string_view pattern) {
  return translator{pattern}.run();
}

} // namespace troupe::engine::text
