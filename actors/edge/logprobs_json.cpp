#include "actors/edge/logprobs_json.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <string>
#include <utility>

namespace troupe::actors {

namespace {

using json = nlohmann::ordered_json;

float sayable(float logprob) { return std::max(logprob, -9999.0F); }

json bytes_json(const std::string& bytes) {
  auto all = json::array();
  for (const char byte : bytes)
    all.push_back(static_cast<unsigned char>(byte));
  return all;
}

json chat_token(const token_text& one) {
  return {
      {"token", one.bytes}, {"logprob", sayable(one.logprob)}, {"bytes", bytes_json(one.bytes)}};
}

} // namespace

json chat_logprobs(std::span<const token_likelihood> tokens) {
  auto content = json::array();
  for (const auto& likely : tokens) {
    auto one = chat_token(likely.chosen);
    auto top = json::array();
    for (const auto& other : likely.top)
      top.push_back(chat_token(other));
    one["top_logprobs"] = std::move(top);
    content.push_back(std::move(one));
  }
  return {{"content", std::move(content)}};
}

json completion_logprobs(std::span<const token_likelihood> tokens) {
  json all = {{"text_offset", json::array()},
              {"token_logprobs", json::array()},
              {"tokens", json::array()},
              {"top_logprobs", json::array()}};
  for (const auto& likely : tokens) {
    const auto mine = sayable(likely.chosen.logprob);
    all["text_offset"].push_back(likely.offset);
    all["token_logprobs"].push_back(mine);
    all["tokens"].push_back(likely.chosen.bytes);
    json top = {{likely.chosen.bytes, mine}};
    for (const auto& other : likely.top)
      if (!top.contains(other.bytes))
        top[other.bytes] = sayable(other.logprob);
    all["top_logprobs"].push_back(std::move(top));
  }
  return all;
}

json ranked_logprobs(std::span<const token_likelihood> tokens) {
  const auto entry = [](const token_text& one, std::uint32_t rank) -> json {
    return {{"logprob", sayable(one.logprob)}, {"rank", rank}, {"decoded_token", one.bytes}};
  };
  auto all = json::array();
  for (const auto& likely : tokens) {
    json one = {{std::to_string(likely.chosen.token), entry(likely.chosen, likely.rank)}};
    for (std::uint32_t i = 0; i < likely.top.size(); ++i)
      if (likely.top[i].token != likely.chosen.token)
        one[std::to_string(likely.top[i].token)] = entry(likely.top[i], i + 1);
    all.push_back(std::move(one));
  }
  return all;
}

} // namespace troupe::actors
