// Cuts texts at every place and compares what the filter of examples/hybrid_backend says of the
// pieces with what it says of the whole.

#include "private_data.hpp"

#include <cstdio>
#include <string>
#include <utility>

namespace {

constexpr std::pair<const char*, const char*> texts[] = {
    {"write to will.shakespeare+plays@globe.theatre.org, now", "write to [e-mail], now"},
    {"a@b.co", "[e-mail]"},
    {"not@address and @ alone", "not@address and @ alone"},
    {"call +44 (0)20 7902-1400 at noon", "call [phone] at noon"},
    {"call 555-867-5309.", "call [phone]."},
    {"in 1599 and 1601 he wrote 3 acts", "in 1599 and 1601 he wrote 3 acts"},
    {"id x1234567 and 1234567x stay", "id x1234567 and 1234567x stay"},
    {"both: a.b@c.de / 020 7902 1400\nnext", "both: [e-mail] / [phone]\nnext"},
    {"R\xc3\xb6mer r@r.it \xe2\x82\xac", "R\xc3\xb6mer [e-mail] \xe2\x82\xac"},
    {"", ""},
};

std::string through(const std::string& text, std::size_t first, std::size_t second) {
  guard::private_data filter{{"[e-mail]", "[phone]"}};
  std::string out = filter.push(text.substr(0, first));
  out += filter.push(text.substr(first, second - first));
  out += filter.push(text.substr(second));
  return out + filter.flush();
}

} // namespace

int main() {
  int cuts = 0;
  for (const auto& [given, wanted] : texts) {
    const std::string text = given;
    for (std::size_t i = 0; i <= text.size(); ++i)
      for (std::size_t j = i; j <= text.size(); ++j, ++cuts)
        if (const auto got = through(text, i, j); got != wanted) {
          std::printf("'%s' cut at %zu and %zu: '%s', not '%s'\n", given, i, j, got.c_str(),
                      wanted);
          return 1;
        }
    guard::private_data filter{{"[e-mail]", "[phone]"}};
    std::string out;
    for (const char c : text)
      out += filter.push({&c, 1});
    if (out + filter.flush() != wanted)
      return std::printf("'%s' byte by byte: wrong\n", given), 1;
  }
  guard::private_data filter{{"[e-mail]", "[phone]"}};
  const std::string long_word(5000, 'a');
  if (filter.push(long_word).size() + guard::private_data::most_held < long_word.size())
    return std::printf("a long word is held back\n"), 1;
  std::printf("%d cuts, all alike\n", cuts);
}
