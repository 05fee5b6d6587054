#include "actors/edge/logprobs_json.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <limits>

using namespace troupe::actors;
using json = nlohmann::ordered_json;

namespace {

/// Two tokens: one that is not the likeliest, and a part of a character.
std::vector<token_likelihood> sample() {
  constexpr auto never = -std::numeric_limits<float>::infinity();
  return {{.chosen = {7, " the", -1.5F},
           .rank = 2,
           .top = {{9, " a", -0.5F}, {7, " the", -1.5F}},
           .offset = 0},
          {.chosen = {3, "\xC3", -0.25F}, .rank = 1, .top = {{4, "x", never}}, .offset = 4}};
}

std::string text_of(const json& j) {
  return j.dump(-1, ' ', false, json::error_handler_t::replace);
}

} // namespace

TEST_CASE("likelihoods in a chat", "[logprobs]") {
  const auto made = json::parse(text_of(chat_logprobs(sample())));
  const auto& content = made.at("content");
  REQUIRE(content.size() == 2);
  CHECK(content[0].at("token") == " the");
  CHECK(content[0].at("bytes") == json{32, 116, 104, 101});
  CHECK(content[0].at("top_logprobs").at(0).at("token") == " a");
  CHECK(content[1].at("token") == "\xEF\xBF\xBD");
  CHECK(content[1].at("bytes") == json{0xC3});
  CHECK(content[1].at("top_logprobs").at(0).at("logprob") == -9999.0);
}

TEST_CASE("likelihoods in a completion", "[logprobs]") {
  const auto made = json::parse(text_of(completion_logprobs(sample())));
  CHECK(made.at("text_offset") == json{0, 4});
  CHECK(made.at("token_logprobs") == json{-1.5, -0.25});
  CHECK(made.at("top_logprobs").at(0) == json{{" the", -1.5}, {" a", -0.5}});
  CHECK(made.at("top_logprobs").at(1).size() == 2);
}

TEST_CASE("likelihoods as the vLLM backend has them", "[logprobs]") {
  const auto made = json::parse(text_of(ranked_logprobs(sample())));
  REQUIRE(made.size() == 2);
  CHECK(made[0].at("7") == json{{"logprob", -1.5}, {"rank", 2}, {"decoded_token", " the"}});
  CHECK(made[0].at("9").at("rank") == 1);
  CHECK(made[0].size() == 2);
}
