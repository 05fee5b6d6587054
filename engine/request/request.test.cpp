#include "troupe/engine/request.hpp"

#include <catch2/catch.hpp>

#include <set>

using namespace troupe;
using namespace troupe::engine;

TEST_CASE("finish reasons are named as in OpenAI's API", "[request]") {
  CHECK(to_string(finish_reason::none).empty());
  CHECK(to_string(finish_reason::stop) == "stop");
  CHECK(to_string(finish_reason::length) == "length");
  std::set<std::string_view> names;
  for (const auto reason : {finish_reason::none, finish_reason::stop, finish_reason::length,
                            finish_reason::abort, finish_reason::error})
    names.insert(to_string(reason));
  CHECK(names.size() == 5);
}

TEST_CASE("the defaults are vLLM's neutral ones", "[request]") {
  const sampling_params sampling;
  CHECK(sampling.temperature == 1.0F);
  CHECK(sampling.top_k == 0);
  CHECK(sampling.top_p == 1.0F);
  CHECK(sampling.min_p == 0.0F);
  CHECK(sampling.max_tokens == 16);
  CHECK_FALSE(sampling.ignore_eos);
  CHECK(submission{}.attempt == 1);
  CHECK(token_chunk{}.stop_token == -1);
}
