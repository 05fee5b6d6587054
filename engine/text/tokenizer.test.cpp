#include "engine/text/tokenizer.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::engine::text;

TEST_CASE("the shipped model's tokenizer round-trips text") {
  const auto loaded = tokenizer::load(TROUPE_SOURCE_DIR "/examples/models/bard/hf/tokenizer.json");
  if (!loaded)
    FAIL(loaded.error().note);
  CHECK(loaded->vocab_size() == 4096);
  const std::string text = "<|im_start|>ROMEO:\nBut, soft! what light\tthrough yonder  window\n\n"
                           "breaks? 1234 caf\xC3\xA9 \xF0\x9F\x8E\xAD";
  const auto ids = loaded->encode(text);
  REQUIRE(ids);
  CHECK(loaded->decode(*ids, false) == text);
  CHECK(loaded->decode(*ids, true) == text.substr(12));
  CHECK(ids->front() == 1);
}
