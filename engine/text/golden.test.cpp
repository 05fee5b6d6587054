#include "engine/text/tokenizer.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <fstream>
#include <string>

using namespace troupe;
using namespace troupe::engine::text;
using nlohmann::json;

namespace {

const std::string data = TROUPE_SOURCE_DIR "/tests/golden/data/tokenizers/";

tokenizer load(const std::string& name) {
  const std::string path = name == "bard" ? TROUPE_SOURCE_DIR
                               "/examples/models/bard/hf/tokenizer.json"
                                          : data + name + "/tokenizer.json";
  auto loaded = tokenizer::load(path);
  if (!loaded)
    FAIL(loaded.error().note);
  return std::move(*loaded);
}

/// Calls `check` with every line of a golden file; fails where there are fewer than a hundred.
template <class Check>
void for_each_line(const std::string& path, Check check) {
  std::ifstream file{path};
  REQUIRE(file);
  std::size_t lines = 0;
  for (std::string line; std::getline(file, line); ++lines)
    check(json::parse(line));
  CHECK(lines >= 100);
}

} // namespace

TEST_CASE("ids and texts are those of Hugging Face tokenizers") {
  const std::string name = GENERATE("bard", "gpt2", "llama3", "qwen");
  const tokenizer loaded = load(name);
  for_each_line(data + name + "/encode.jsonl", [&](const json& golden) {
    INFO(name << ": " << golden.dump());
    const auto text = golden.at("text").get<std::string>();
    const auto ids = golden.at("ids").get<std::vector<token_id>>();
    const auto special = golden.value("ids_special", ids);
    const auto decoded = golden.value("decoded", text);
    REQUIRE(loaded.encode(text, {.add_special_tokens = false}) == ids);
    REQUIRE(loaded.encode(text, {.add_special_tokens = true}) == special);
    REQUIRE(loaded.decode(ids, false) == decoded);
    REQUIRE(loaded.decode(ids, true) == golden.value("decoded_skip", decoded));
  });
}

TEST_CASE("ids of no text in particular decode as in Hugging Face tokenizers") {
  const std::string name = GENERATE("bard", "gpt2", "llama3", "qwen");
  const tokenizer loaded = load(name);
  for_each_line(data + name + "/decode.jsonl", [&](const json& golden) {
    INFO(name << ": " << golden.dump());
    const auto ids = golden.at("ids").get<std::vector<token_id>>();
    const auto decoded = golden.at("decoded").get<std::string>();
    REQUIRE(loaded.decode(ids, false) == decoded);
    REQUIRE(loaded.decode(ids, true) == golden.value("decoded_skip", decoded));
  });
}
