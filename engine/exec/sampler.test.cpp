#include "engine/exec/sampler.hpp"

#include "engine/exec/gumbel.hpp"
#include "engine/exec/stable_math.hpp"
#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

using namespace troupe;
using namespace troupe::engine;

namespace {

/// Logits spread like those of a model: mostly small, some large.
std::vector<float> random_logits(std::size_t size, std::uint64_t seed, double spread = 3.0) {
  splitmix64 random{seed};
  std::vector<float> logits(size);
  for (float& x : logits) {
    double sum = -6;
    for (int i = 0; i < 12; ++i)
      sum += static_cast<double>(random() >> 11) * 0x1p-53;
    x = static_cast<float>(sum * spread);
  }
  return logits;
}

/// The allowed tokens by the definitions, all in double and with full sorts.
std::vector<token_id> allowed_naively(const std::vector<float>& logits, const sampling_params& p) {
  const double temperature = std::max(p.temperature, 0.01F);
  std::vector<token_id> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto logit = [&](token_id t) { return double{logits[static_cast<std::size_t>(t)]}; };
  std::sort(ids.begin(), ids.end(), [&](token_id a, token_id b) {
    return logit(a) != logit(b) ? logit(a) > logit(b) : a < b;
  });
  const double greatest = logit(ids.front());
  const auto weight = [&](token_id t) { return std::exp((logit(t) - greatest) / temperature); };
  if (p.min_p > 0)
    std::erase_if(ids, [&](token_id t) { return weight(t) < double{p.min_p}; });
  if (p.top_k > 0 && static_cast<std::size_t>(p.top_k) < ids.size()) {
    const double kth = logit(ids[static_cast<std::size_t>(p.top_k) - 1]);
    std::erase_if(ids, [&](token_id t) { return logit(t) < kth; });
  }
  if (p.top_p < 1) {
    double total = 0;
    for (const token_id t : ids)
      total += weight(t);
    double sum = 0;
    std::size_t kept = 0;
    while (kept < ids.size() && sum < double{p.top_p} * total)
      sum += weight(ids[kept++]);
    ids.resize(kept);
  }
  return ids;
}

token_id choose_naively(const std::vector<float>& logits, const sampling_params& p,
                        std::uint32_t position) {
  const std::vector<token_id> allowed = allowed_naively(logits, p);
  if (p.temperature < 1e-5F)
    return allowed.front();
  token_id best = -1;
  double best_score = -1e300;
  for (const token_id t : allowed) {
    const double score =
        double{logits[static_cast<std::size_t>(t)]} / double{std::max(p.temperature, 0.01F)} +
        gumbel({.seed = p.seed, .choice = p.choice, .position = position}, t);
    if (score > best_score || (score == best_score && t < best)) {
      best_score = score;
      best = t;
    }
  }
  return best;
}

sampling_params at(float temperature, std::uint64_t seed = 0) {
  sampling_params params;
  params.temperature = temperature;
  params.seed = seed;
  return params;
}

} // namespace

TEST_CASE("the stable logarithm and exponential are those of the C library to a few ulps") {
  splitmix64 random{1};
  for (int i = 0; i < 20000; ++i) {
    const double u = (static_cast<double>(random() >> 32) + 0.5) * 0x1p-32;
    CHECK(stable_log(u) == Approx(std::log(u)).epsilon(1e-14));
    CHECK(stable_log(-std::log(u)) == Approx(std::log(-std::log(u))).epsilon(1e-13).margin(1e-15));
    const double x = -40.0 * u;
    CHECK(stable_exp(x) == Approx(std::exp(x)).epsilon(1e-14));
  }
  CHECK(stable_exp(0.0) == 1.0);
  CHECK(stable_exp(-1e9) == 0.0);
  CHECK(stable_log(1.0) == 0.0);
}

TEST_CASE("gumbel noise is the same everywhere, one value per key and token") {
  // Written down once: a change of these is a change of what every seed means.
  CHECK(gumbel_of_word(0) == Approx(-3.1299).epsilon(1e-4));
  CHECK(gumbel_of_word(0xFFFFFFFF) == Approx(33 * std::log(2.0)).epsilon(1e-9));
  CHECK(gumbel_of_word(0x80000000) == Approx(0.36651292).epsilon(1e-7));
  const gumbel_key key{.seed = 0x123456789ABCDEF0, .choice = 3, .position = 77};
  std::vector<std::uint32_t> words(gumbel_block);
  for (const token_id first : {0, 4, 256, 151808}) {
    gumbel_words(key, first, std::span<std::uint32_t, gumbel_block>{words});
    for (std::size_t i = 0; i < gumbel_block; ++i)
      REQUIRE(gumbel_of_word(words[i]) == gumbel(key, first + static_cast<token_id>(i)));
  }
  std::set<double> different;
  for (const gumbel_key k :
       {key, gumbel_key{1, 3, 77}, gumbel_key{key.seed, 4, 77}, gumbel_key{key.seed, 3, 78},
        gumbel_key{key.seed ^ (1ULL << 63), 3, 77}})
    for (const token_id token : {0, 1, 5, 1 << 20})
      different.insert(gumbel(k, token));
  CHECK(different.size() == 20);
}

TEST_CASE("greedy takes the greatest logit, the lowest id of equals") {
  sampler choose;
  std::vector<float> logits(1000, -2.0F);
  logits[700] = logits[300] = logits[301] = 5.0F;
  CHECK(*choose.sample(logits, at(0), 5) == 300);
  CHECK(*choose.sample(logits, at(9e-6F), 5) == 300);
  CHECK(*choose.sample(std::vector<float>{3.0F}, at(0), 0) == 0);
  CHECK(*choose.sample(std::vector<float>(77, -1e30F), at(0), 0) == 0);
}

TEST_CASE("logits that are not finite are an error of that row alone") {
  sampler choose;
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()})
    for (const std::size_t where : {0U, 15U, 64U, 998U, 999U}) {
      std::vector<float> logits(1000, 1.0F);
      CHECK(choose.sample(logits, at(1), 9));
      logits[where] = bad;
      for (const float temperature : {0.0F, 1.0F}) {
        const auto chosen = choose.sample(logits, at(temperature), 9);
        REQUIRE(!chosen);
        CHECK(chosen.error().code == errc::corrupt_data);
        CHECK(chosen.error().note.find("position 9") != std::string::npos);
      }
    }
}

TEST_CASE("the pruned choice is the full arg max") {
  sampler choose;
  splitmix64 random{99};
  for (int round = 0; round < 400; ++round) {
    const std::size_t size = 1 + random.below(round % 8 == 0 ? 20000 : 3000);
    const double spread = round % 4 == 0 ? 0.0 : 0.2 * static_cast<double>(random.below(30));
    const std::vector<float> logits = random_logits(size, random(), spread);
    sampling_params params = at(0.005F + 0.01F * static_cast<float>(random.below(200)), random());
    params.choice = static_cast<std::uint32_t>(random.below(3));
    if (random.below(2) == 0)
      params.top_k = static_cast<std::int32_t>(random.below(60)) - 1;
    if (random.below(2) == 0)
      params.top_p = 0.05F + 0.01F * static_cast<float>(random.below(95));
    if (random.below(3) == 0)
      params.min_p = 0.001F * static_cast<float>(random.below(500));
    const auto position = static_cast<std::uint32_t>(random.below(5000));
    CAPTURE(size, spread, params.temperature, params.top_k, params.top_p, params.min_p);
    REQUIRE(*choose.sample(logits, params, position) == choose_naively(logits, params, position));
  }
}

TEST_CASE("ties at the border of top_k stay, as in vLLM") {
  sampler choose;
  std::vector<float> logits(300, 0.0F);
  logits[10] = logits[200] = logits[299] = 4.0F;
  sampling_params params = at(1);
  params.top_k = 2;
  std::set<token_id> seen;
  for (std::uint32_t position = 0; position < 200; ++position)
    seen.insert(*choose.sample(logits, params, position));
  CHECK(seen == std::set<token_id>{10, 200, 299});
}

TEST_CASE("draws follow the softmax of the allowed tokens") {
  sampler choose;
  const std::vector<float> logits = random_logits(40, 5, 1.5);
  const auto chi_square = [&](sampling_params params) {
    const std::vector<token_id> allowed = allowed_naively(logits, params);
    double total = 0;
    for (const token_id t : allowed)
      total += std::exp(double{logits[static_cast<std::size_t>(t)]} / double{params.temperature});
    std::vector<int> seen(logits.size(), 0);
    constexpr int draws = 40000;
    for (int i = 0; i < draws; ++i) {
      params.seed = static_cast<std::uint64_t>(i);
      ++seen[static_cast<std::size_t>(*choose.sample(logits, params, 17))];
    }
    double sum = 0;
    double rare_seen = 0;
    double rare_expected = 0;
    int counted = 0;
    for (const token_id t : allowed) {
      const auto index = static_cast<std::size_t>(t);
      const double expected =
          draws * std::exp(double{logits[index]} / double{params.temperature}) / total;
      if (expected < 10) {
        rare_seen += seen[index];
        rare_expected += expected;
        continue;
      }
      sum += (seen[index] - expected) * (seen[index] - expected) / expected;
      ++counted;
    }
    CHECK(std::accumulate(seen.begin(), seen.end(), 0) == draws);
    CHECK(std::abs(rare_seen - rare_expected) < 6 * std::sqrt(rare_expected + 1));
    // About five standard deviations above the mean of a chi-square with that many degrees.
    CHECK(sum < counted + 5 * std::sqrt(2.0 * counted));
  };
  chi_square(at(1.0F));
  chi_square(at(0.6F));
  sampling_params restricted = at(1.3F);
  restricted.top_k = 12;
  restricted.top_p = 0.9F;
  chi_square(restricted);
}

TEST_CASE("a seed, a choice and a position name one draw") {
  sampler one;
  sampler other;
  const std::vector<float> flat(5000, 0.25F);
  std::set<token_id> seen;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const token_id token = *one.sample(flat, at(1, seed), 3);
    static_cast<void>(other.sample(random_logits(700, seed), at(0.7F, seed), 3));
    CHECK(*other.sample(flat, at(1, seed), 3) == token);
    seen.insert(token);
  }
  CHECK(seen.size() > 45);
}
