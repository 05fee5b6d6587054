#include "engine/exec/likelihood.hpp"

#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

using namespace troupe;
using namespace troupe::engine;

namespace {

/// By the definition: a full sort, and the C library's functions in long double.
token_logprobs naively(const std::vector<float>& logits, token_id chosen, std::int32_t top) {
  const auto greatest = *std::max_element(logits.begin(), logits.end());
  long double mass = 0;
  for (const float x : logits)
    mass += std::exp(static_cast<long double>(x) - greatest);
  const auto logprob = [&](token_id t) {
    return static_cast<float>(static_cast<long double>(logits[static_cast<std::size_t>(t)]) -
                              greatest - std::log(mass));
  };
  std::vector<token_id> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](token_id a, token_id b) {
    return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
  });
  token_logprobs out{.chosen = {chosen, logprob(chosen)}, .rank = 0, .top = {}};
  for (const float x : logits)
    out.rank += x >= logits[static_cast<std::size_t>(chosen)] ? 1 : 0;
  for (std::size_t i = 0; i < std::min<std::size_t>(logits.size(), std::size_t(top)); ++i)
    out.top.push_back({order[i], logprob(order[i])});
  return out;
}

void check_equal(const token_logprobs& got, const token_logprobs& wanted) {
  CHECK(got.chosen.token == wanted.chosen.token);
  CHECK(got.chosen.logprob == Approx(wanted.chosen.logprob).margin(1e-5));
  CHECK(got.rank == wanted.rank);
  REQUIRE(got.top.size() == wanted.top.size());
  for (std::size_t i = 0; i < got.top.size(); ++i) {
    CHECK(got.top[i].token == wanted.top[i].token);
    CHECK(got.top[i].logprob == Approx(wanted.top[i].logprob).margin(1e-5));
  }
}

} // namespace

TEST_CASE("likelihoods are those of the definition", "[likelihood]") {
  splitmix64 random{41};
  for (const std::size_t vocabulary : {1U, 2U, 7U, 64U, 1000U, 30011U}) {
    for (const std::int32_t top : {0, 1, 5, 20}) {
      // Coarse values, so that equals are common.
      std::vector<float> logits(vocabulary);
      for (float& x : logits)
        x = static_cast<float>(static_cast<int>(random() % 400) - 200) / 16.0F;
      const auto chosen = static_cast<token_id>(random() % vocabulary);
      CAPTURE(vocabulary, top, chosen);
      check_equal(likelihood_of(logits, chosen, top), naively(logits, chosen, top));
    }
  }
}

TEST_CASE("likelihoods stay finite at extreme logits", "[likelihood]") {
  const std::vector<float> logits{3e38F, -3e38F, 0, 1e30F};
  const auto got = likelihood_of(logits, 0, 4);
  CHECK(got.chosen.logprob == 0);
  CHECK(got.rank == 1);
  CHECK(got.top.at(3).token == 1);
  // A distance beyond the greatest float is minus infinity, which JSON cannot say; see the edges.
  CHECK(got.top.at(3).logprob < -1e38F);
}
