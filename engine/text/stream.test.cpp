#include "engine/text/byte_alphabet.hpp"
#include "engine/text/detokenizer.hpp"
#include "engine/text/stop_matcher.hpp"
#include "engine/text/tokenizer.hpp"
#include "engine/text/utf8.hpp"
#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <string>

using namespace troupe;
using namespace troupe::engine::text;

namespace {

tokenizer load(const std::string& name) {
  auto loaded = tokenizer::load(TROUPE_SOURCE_DIR "/tests/golden/data/tokenizers/" + name +
                                "/tokenizer.json");
  if (!loaded)
    FAIL(loaded.error().note);
  return std::move(*loaded);
}

/// The full decode, by the definition: all bytes first, then one pass of replacement.
std::string naive_decode(const tokenizer& source, const std::vector<token_id>& ids, bool skip) {
  std::string bytes;
  for (const token_id id : ids)
    if (!skip || !source.is_special(id))
      bytes += source.token_bytes(id);
  std::string text;
  for (std::size_t at = 0; at < bytes.size();) {
    const utf8_char next = decode_utf8(std::string_view{bytes}.substr(at));
    text += next.valid ? bytes.substr(at, next.bytes) : "\xEF\xBF\xBD";
    at += next.bytes;
  }
  return text;
}

struct naive_match {
  std::size_t begin = std::string::npos;
  std::size_t end = std::string::npos;
};

/// The match that ends first, and of those the longest.
naive_match naive_find(const std::string& text, const std::vector<std::string>& stops) {
  naive_match best;
  for (const std::string& stop : stops) {
    const auto begin = text.find(stop);
    if (begin == std::string::npos)
      continue;
    const auto end = begin + stop.size();
    if (best.end == std::string::npos || end < best.end || (end == best.end && begin < best.begin))
      best = {begin, end};
  }
  return best;
}

std::string random_text(splitmix64& random, std::size_t max_size) {
  std::string text;
  for (auto left = random.below(max_size + 1); left > 0; --left)
    text += "aab"[random.below(3)];
  return text;
}

} // namespace

TEST_CASE("a stream of any ids equals the full decode and never parts a character") {
  const std::string name = GENERATE("gpt2", "llama3", "qwen");
  const tokenizer source = load(name);
  splitmix64 random{20260101};
  for (int round = 0; round < 3000; ++round) {
    std::vector<token_id> ids;
    for (auto left = random.below(40); left > 0; --left)
      ids.push_back(static_cast<token_id>(random.below(source.vocab_size() + 4)) - 2);
    const bool skip = random.below(2) == 0;
    detokenizer stream{source, {.skip_special_tokens = skip}};
    std::string text;
    for (const token_id id : ids) {
      // A copy goes on where the original stopped.
      detokenizer copy = stream;
      CHECK(copy.state() == stream.state());
      const std::string piece = copy.push(id);
      stream = copy;
      REQUIRE(find_invalid_utf8(piece) == std::string::npos);
      text += piece;
    }
    text += stream.flush();
    INFO(name << " round " << round);
    REQUIRE(text == naive_decode(source, ids, skip));
    REQUIRE(text == source.decode(ids, skip));
  }
}

TEST_CASE("a character comes out with the token that completes it") {
  const tokenizer source = load("gpt2");
  const auto ids = source.encode("\xF0\x9F\x8E\xAD!");
  REQUIRE(ids);
  REQUIRE(ids->size() >= 3);
  detokenizer stream{source};
  for (std::size_t i = 0; i + 2 < ids->size(); ++i)
    CHECK(stream.push((*ids)[i]).empty());
  CHECK(stream.push((*ids)[ids->size() - 2]) == "\xF0\x9F\x8E\xAD");
  CHECK(stream.push(ids->back()) == "!");
  CHECK(stream.flush().empty());
  CHECK(stream.push((*ids)[0]).empty());
  CHECK(stream.flush() == "\xEF\xBF\xBD");
}

TEST_CASE("lossy UTF-8 replaces each longest start of a character once") {
  const auto lossy = [](std::string bytes) {
    std::string out;
    move_utf8_lossy(bytes, out, true);
    return out;
  };
  const std::string mark = "\xEF\xBF\xBD";
  CHECK(lossy("a\xE4\xBD\xA0z") == "a\xE4\xBD\xA0z");
  CHECK(lossy("\xE4\xBDz") == mark + "z");
  CHECK(lossy("\xF0\x9F\x8E") == mark);
  CHECK(lossy("\xED\xA0\x80") == mark + mark + mark);
  CHECK(lossy("\xC0\xAF") == mark + mark);
  CHECK(lossy("\xF4\x90\x80\x80") == mark + mark + mark + mark);
}

TEST_CASE("the byte alphabet is a bijection") {
  std::string all;
  for (int byte = 0; byte < 256; ++byte)
    all += static_cast<char>(byte);
  CHECK(from_byte_alphabet(to_byte_alphabet(all)) == all);
  CHECK(to_byte_alphabet(" a\n") == "\xC4\xA0"
                                    "a\xC4\x8A");
  CHECK_FALSE(from_byte_alphabet("a b"));
}

TEST_CASE("stop strings in pieces equal a search of the whole text") {
  splitmix64 random{7};
  std::size_t matches = 0;
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops;
    for (auto left = random.below(4); left > 0; --left)
      stops.push_back(random_text(random, 5) + "b");
    const bool include = random.below(2) == 0;
    auto matcher = stop_matcher::make(stops, include);
    REQUIRE(matcher);
    std::string text;
    std::string emitted;
    for (auto left = random.below(12); left > 0; --left) {
      const std::string piece = random_text(random, 4);
      text += piece;
      stop_matcher copy = *matcher;
      emitted += copy.push(piece);
      *matcher = copy;
    }
    const naive_match expected = naive_find(text, stops);
    const bool found = expected.end != std::string::npos;
    REQUIRE(matcher->matched().has_value() == found);
    emitted += matcher->flush();
    matches += found ? 1 : 0;
    REQUIRE(emitted == text.substr(0, include ? expected.end : expected.begin));
    if (found)
      REQUIRE(stops[*matcher->matched()].size() == expected.end - expected.begin);
  }
  CHECK(matches > 1000);
}

TEST_CASE("only what may become a stop string is held back") {
  const std::vector<std::string> stops{"###", "END"};
  auto matcher = stop_matcher::make(stops, false);
  REQUIRE(matcher);
  CHECK(matcher->push("a#") == "a");
  CHECK(matcher->push("#b") == "##b");
  CHECK(matcher->push("EN") == "");
  CHECK(matcher->push("EN") == "EN");
  CHECK(matcher->push("D rest") == "");
  CHECK(matcher->matched() == 1);
  CHECK(matcher->push("more").empty());
}

TEST_CASE("stop strings that cannot be are refused") {
  CHECK(stop_matcher::make(std::vector<std::string>{""}, false).error().code ==
        errc::invalid_argument);
  CHECK(stop_matcher::make(std::vector<std::string>{"\xFF"}, false).error().code ==
        errc::invalid_argument);
  CHECK(stop_matcher::make(std::vector<std::string>(2000, "a"), false).error().code ==
        errc::limit_exceeded);
}
