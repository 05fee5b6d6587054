#include "engine/text/regex.hpp"

#include <catch2/catch.hpp>

#include <string>
#include <vector>

using namespace troupe;
using namespace troupe::engine::text;

namespace {

std::vector<std::string> words(std::string_view pattern, const std::string& text) {
  const auto compiled = regex::compile(pattern);
  if (!compiled)
    FAIL(compiled.error().note);
  const auto found = compiled->find_all(text);
  if (!found)
    FAIL(found.error().note);
  std::vector<std::string> matches;
  for (const byte_range& match : *found)
    matches.push_back(text.substr(match.begin, match.end - match.begin));
  return matches;
}

using strings = std::vector<std::string>;

} // namespace

TEST_CASE("patterns mean what Oniguruma means") {
  CHECK(words(R"((?i:'s|'ll)|\p{L}+)", "It'S we'LL") == strings{"It", "'S", "we", "'LL"});
  CHECK(words(R"(\p{N}{1,3})", "1234567") == strings{"123", "456", "7"});
  CHECK(words(R"(\s+(?!\S)|\s+)", "a   b") == strings{"  ", " "});
  // The next line is white space, the Mongolian vowel separator is not.
  CHECK(words(R"(\s+)", "a\xC2\x85z\xE1\xA0\x8E") == strings{"\xC2\x85"});
  CHECK(words(R"([^\S\n]+)", "a \n b") == strings{" ", " "});
  CHECK(words(R"(\w+)", "a\xCC\x81_1-b") == strings{"a\xCC\x81_1", "b"});
  CHECK(words(R"(^b$)", "a\nb\nc") == strings{"b"});
  CHECK(words(R"(\h+)", "xyz 1aF") == strings{"1aF"});
  CHECK(words(R"(\u0041\x{42}\v)", "AB\x0B") == strings{"AB\x0B"});
  CHECK(words(R"(a{,2}b)", "aaab") == strings{"aab"});
  CHECK(words(R"([[:alpha:]]+|[\p{Han}]+)", "ab1\xE4\xBD\xA0") == strings{"ab", "\xE4\xBD\xA0"});
  CHECK(words(R"(x*)", "axb") == strings{"", "x", ""});
  CHECK(words(R"(\bcat\b)", "cat concat cat") == strings{"cat", "cat"});
}

TEST_CASE("what the two dialects read differently is refused by name") {
  const std::string pattern =
      GENERATE("(?m:.)", "a(?i)b", "(?R)", "(*UTF)", "[a&&b]", "[a[b]]", R"(\K)", R"(\Qa\E)",
               "a{2}+", "(?<n>a)", "(?C1)", R"(\pL)", R"([\w])", "\\", "[a");
  const auto compiled = regex::compile(pattern);
  INFO(pattern);
  REQUIRE_FALSE(compiled);
  CHECK(compiled.error().code == errc::unsupported);
}

TEST_CASE("what is no pattern is refused") {
  CHECK(regex::compile("(a").error().code == errc::invalid_argument);
  CHECK(regex::compile(R"(\p{Nonsense})").error().code == errc::invalid_argument);
  CHECK(regex::compile(std::string(1000, '(') + std::string(1000, ')')).error().code != errc::none);
  CHECK(regex::compile(std::string(100'000, 'a')).error().code == errc::limit_exceeded);
  CHECK_FALSE(regex::compile("((((a{1,999}){1,999}){1,999}){1,999})"));
}

TEST_CASE("a hostile pattern ends in an error, not in a hang") {
  // Exponential, polynomial, and quadratic without any backtracking.
  const std::string pattern =
      GENERATE(R"((a+)+$|.)", R"((?:a|a)*c|.)", R"(a*a*a*a*a*c|.)", R"(a*c|.)", R"((?=.*c)a|.)");
  const std::string text = std::string(200'000, 'a') + "b";
  const auto compiled = regex::compile(pattern);
  INFO(pattern);
  REQUIRE(compiled);
  const auto found = compiled->find_all(text);
  REQUIRE_FALSE(found);
  CHECK(found.error().code == errc::limit_exceeded);
}

TEST_CASE("long texts cost linear time by the patterns that models use") {
  const auto compiled =
      regex::compile(R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+)"
                     R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)");
  REQUIRE(compiled);
  constexpr std::size_t size = 1'000'000;
  CHECK(compiled->find_all(std::string(size, 'a'))->size() == 1);
  CHECK(compiled->find_all(std::string(size, ' ') + "b")->size() == 2);
  CHECK(compiled->find_all(std::string(size, '!'))->size() == 1);
  CHECK(compiled->find_all(std::string(size, '\n'))->size() == 1);
  CHECK(compiled->find_all(std::string(size, '7'))->size() == (size + 2) / 3);
}
