#include "engine/text/tokenizer.hpp"
#include "engine/text/tokenizer_config.hpp"
#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <fstream>
#include <string>

#include <unistd.h>

using namespace troupe;
using namespace troupe::engine::text;
using nlohmann::json;

namespace {

/// A small file with every kind of part in it.
json small_tokenizer() {
  return json::parse(R"J({
    "version": "1.0",
    "added_tokens": [
      {"id": 10, "content": "<s>", "special": true, "normalized": false},
      {"id": 11, "content": " x ", "lstrip": true, "rstrip": true, "normalized": true}],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"},
      {"type": "Replace", "pattern": {"String": "q"}, "content": "ab"},
      {"type": "Strip", "strip_left": false, "strip_right": false}]},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "\\s+|[^\\s]+"},
       "behavior": "Isolated", "invert": false},
      {"type": "Digits", "individual_digits": true},
      {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}]},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                 {"Sequence": {"id": "A", "type_id": 0}}],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [10], "tokens": ["<s>"]}}},
    "decoder": {"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "zz"}, "content": "z"}, {"type": "ByteFallback"},
      {"type": "ByteLevel"}, {"type": "Fuse"},
      {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "model": {"type": "BPE", "dropout": null, "unk_token": "u", "fuse_unk": true,
      "byte_fallback": false,
      "vocab": {"u": 0, "a": 1, "b": 2, "ab": 3, "c": 4, "abc": 5,
        "1": 6, "Ġ": 7, "Ġa": 8, "<0x41>": 9},
      "merges": ["a b", ["ab", "c"], "Ġ a"]}
  })J");
}

error error_of(const json& document) {
  const auto loaded = tokenizer::parse(document.dump(), "t.json");
  REQUIRE_FALSE(loaded);
  return loaded.error();
}

json with(const std::string& pointer, const json& value) {
  json document = small_tokenizer();
  document[json::json_pointer{pointer}] = value;
  return document;
}

/// One random change of the text of a file.
void mutate(std::string& text, splitmix64& random) {
  static const std::vector<std::string> pieces{
      "null", "-1",       "4294967296", "1e99",       "\"\"", "[]",
      "{}",   "true",     "\"BPE\"",    "\"a\"",      "0.5",  "99999999999999999999",
      "[[[[", "\"type\"", "\\u0000",    "\"\\ud800\""};
  const auto at = random.below(text.size());
  switch (random.below(4)) {
  case 0:
    text[at] = static_cast<char>(random());
    break;
  case 1:
    text.erase(at, random.below(20));
    break;
  case 2:
    text.insert(at, text.substr(random.below(text.size()), random.below(40)));
    break;
  default: {
    // Puts another value where one stands.
    const auto colon = text.find(':', at);
    const auto end = colon == text.npos ? text.npos : text.find_first_of(",}]", colon);
    if (end != text.npos)
      text.replace(colon + 1, end - colon - 1, pieces[random.below(pieces.size())]);
  }
  }
}

} // namespace

TEST_CASE("a file with every kind of part encodes and decodes") {
  const auto loaded = tokenizer::parse(small_tokenizer().dump(), "t.json");
  if (!loaded)
    FAIL(loaded.error().note);
  CHECK(loaded->encode("ABc1 a<s>", {.add_special_tokens = true}) ==
        std::vector<token_id>{10, 5, 6, 7, 1, 10});
  CHECK(loaded->encode("qc") == std::vector<token_id>{10, 5});
  CHECK(loaded->encode("??") == std::vector<token_id>{10, 0});
  CHECK(loaded->decode(std::vector<token_id>{10, 8, 3, 9}, true) == "aabA");
  CHECK(loaded->token_to_id("abc") == 5);
  CHECK(loaded->id_to_token(10) == "<s>");
  CHECK_FALSE(loaded->id_to_token(12));
  CHECK(loaded->is_special(10));
  CHECK_FALSE(loaded->is_special(11));
  CHECK(loaded->vocab_size() == 12);
}

TEST_CASE("an unknown part is refused with those that there are") {
  const error e = error_of(with("/pre_tokenizer/pretokenizers/1/type", "Nonesuch"));
  CHECK(e.code == errc::unsupported);
  CHECK(e.note.find("t.json: $.pre_tokenizer.pretokenizers[1]") == 0);
  CHECK(e.note.find("Nonesuch") != std::string::npos);
  CHECK(e.note.find("ByteLevel, Digits, Split, Sequence") != std::string::npos);
}

TEST_CASE("wrong values are refused with their place") {
  const auto check = [](const std::string& pointer, const json& value, errc code,
                        const std::string& place) {
    const error e = error_of(with(pointer, value));
    INFO(pointer << " " << value.dump() << ": " << e.note);
    CHECK(e.code == code);
    CHECK(e.note.find("t.json: " + place) == 0);
  };
  check("/model/vocab/a", -1, errc::invalid_argument, "$.model.vocab");
  check("/model/vocab/a", 2, errc::invalid_argument, "$.model.vocab");
  check("/model/vocab/a", 1'000'000'000, errc::invalid_argument, "$.model.vocab");
  check("/model/vocab/a", "1", errc::invalid_argument, "$.model.vocab");
  check("/model/vocab", json::array(), errc::invalid_argument, "$.model.vocab");
  check("/model/merges/0", "a x", errc::invalid_argument, "$.model.merges");
  check("/model/merges/0", "a b c", errc::invalid_argument, "$.model.merges");
  check("/model/merges/0", {"a"}, errc::invalid_argument, "$.model.merges");
  check("/model/merges", 1, errc::invalid_argument, "$.model.merges");
  check("/model/dropout", 0.1, errc::unsupported, "$.model.dropout");
  check("/model/end_of_word_suffix", "</w>", errc::unsupported, "$.model.end_of_word_suffix");
  check("/model/type", "WordPiece", errc::unsupported, "$.model");
  check("/model", nullptr, errc::invalid_argument, "$.model");
  check("/added_tokens/0/id", 1, errc::conflict, "$.added_tokens[0]");
  check("/added_tokens/1/id", 10, errc::conflict, "$.added_tokens[1]");
  check("/added_tokens/0/id", 1e9, errc::invalid_argument, "$.added_tokens[0].id");
  check("/added_tokens/0/special", 1, errc::invalid_argument, "$.added_tokens[0].special");
  check("/added_tokens/0/content", std::string(600, 'a'), errc::invalid_argument,
        "$.added_tokens[0]");
  check("/pre_tokenizer/pretokenizers/0/pattern", json{{"Regex", "(a"}}, errc::invalid_argument,
        "$.pre_tokenizer.pretokenizers[0].pattern.Regex");
  check("/pre_tokenizer/pretokenizers/0/behavior", "Sideways", errc::invalid_argument,
        "$.pre_tokenizer.pretokenizers[0]");
  check("/post_processor/special_tokens", json::object(), errc::invalid_argument,
        "$.post_processor.special_tokens");
  check("/decoder/decoders/4/start", -1, errc::invalid_argument, "$.decoder.decoders[4].start");
  check("/decoder/decoders/0/pattern", json{{"Regex", "z"}}, errc::unsupported,
        "$.decoder.decoders[0].pattern");
}

TEST_CASE("deep nesting is refused") {
  json part = {{"type", "NFC"}};
  for (int i = 0; i < 100; ++i)
    part = {{"type", "Sequence"}, {"normalizers", json::array({part})}};
  CHECK(error_of(with("/normalizer", part)).code == errc::unsupported);
  const std::string brackets(1'000'000, '[');
  CHECK(tokenizer::parse(brackets, "t.json").error().code == errc::corrupt_data);
  CHECK(tokenizer::load("/nonexistent/tokenizer.json").error().code == errc::not_found);
}

TEST_CASE("mutated files are refused or work") {
  const std::string original = small_tokenizer().dump();
  splitmix64 random{42};
  const std::vector<std::string> texts{"ABc1 a<s> x  q", "", "\xF0\x9F\x8E\xAD\xCC\x81 zz \n\t11"};
  int loaded_count = 0;
  constexpr int rounds = 5000;
  for (int round = 0; round < rounds; ++round) {
    std::string text = original;
    for (auto left = 1 + random.below(3); left > 0; --left)
      mutate(text, random);
    const auto loaded = tokenizer::parse(text, "t.json");
    if (!loaded) {
      REQUIRE(loaded.error().note.find("t.json: ") == 0);
      continue;
    }
    ++loaded_count;
    for (const std::string& input : texts)
      if (const auto ids = loaded->encode(input))
        static_cast<void>(loaded->decode(*ids, round % 2 == 0));
    std::vector<token_id> any;
    for (int i = 0; i < 20; ++i)
      any.push_back(static_cast<token_id>(random.below(40)) - 10);
    static_cast<void>(loaded->decode(any, false));
  }
  // Both outcomes must have been seen, or the test tests nothing.
  CHECK(loaded_count > rounds / 50);
  CHECK(loaded_count < rounds * 9 / 10);
}

TEST_CASE("text that is no UTF-8 is refused with its offset") {
  const auto loaded = tokenizer::parse(small_tokenizer().dump(), "t.json");
  REQUIRE(loaded);
  const auto ids = loaded->encode("abc\xC3(");
  REQUIRE_FALSE(ids);
  CHECK(ids.error().code == errc::invalid_argument);
  CHECK(ids.error().note.find("byte 3") != std::string::npos);
}

TEST_CASE("a megabyte of anything ends soon") {
  const std::string name = GENERATE("bard", "qwen");
  const auto loaded = tokenizer::load(
      name == "bard" ? TROUPE_SOURCE_DIR "/examples/models/bard/hf/tokenizer.json"
                     : TROUPE_SOURCE_DIR "/tests/golden/data/tokenizers/qwen/tokenizer.json");
  REQUIRE(loaded);
  std::string marks = "e";
  for (int i = 0; i < 100'000; ++i)
    marks += i < 50'000 ? "\xCC\x81" : "\xCC\xA7";
  std::string mixed;
  splitmix64 random{3};
  while (mixed.size() < 500'000)
    mixed += static_cast<char>('a' + random.below(26));
  for (const std::string& text :
       {std::string(500'000, 'a'), std::string(500'000, ' ') + "x", std::string(500'000, '\n'),
        std::string(500'000, '<'), marks, mixed}) {
    const auto ids = loaded->encode(text);
    REQUIRE(ids);
    CHECK(!ids->empty());
    if (name == "bard")
      CHECK(loaded->decode(*ids, false) == text);
  }
}

TEST_CASE("tokenizer_config.json is read in both of its forms") {
  const auto directory =
      std::filesystem::temp_directory_path() / ("troupe_text_" + std::to_string(::getpid()));
  REQUIRE(std::filesystem::create_directory(directory));
  const auto write = [&](const std::string& name, const std::string& text) {
    std::ofstream{directory / name} << text;
  };
  REQUIRE(load_tokenizer_config(directory) == tokenizer_config{});
  write("tokenizer_config.json", R"({"bos_token": {"content": "<s>"}, "eos_token": "</s>",
    "pad_token": null, "add_bos_token": true, "chat_template": [
    {"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]})");
  auto config = load_tokenizer_config(directory);
  REQUIRE(config);
  CHECK(config->bos_token == "<s>");
  CHECK(config->eos_token == "</s>");
  CHECK_FALSE(config->pad_token);
  CHECK(config->add_bos_token == true);
  CHECK_FALSE(config->add_eos_token);
  CHECK(config->chat_template == "D");
  CHECK(config->named_templates.size() == 2);
  write("chat_template.jinja", "J");
  CHECK(load_tokenizer_config(directory)->chat_template == "J");
  write("tokenizer_config.json", R"({"bos_token": 1})");
  const auto wrong = load_tokenizer_config(directory);
  REQUIRE_FALSE(wrong);
  CHECK(wrong.error().code == errc::invalid_argument);
  CHECK(wrong.error().note.find("$.bos_token") != std::string::npos);
  write("tokenizer_config.json", "{");
  CHECK(load_tokenizer_config(directory).error().code == errc::corrupt_data);
  std::filesystem::remove_all(directory);
}
