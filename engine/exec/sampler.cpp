#include "engine/exec/sampler.hpp"

#include "engine/exec/gumbel.hpp"
#include "engine/exec/stable_math.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>

namespace troupe::engine {

namespace {

constexpr std::size_t block = 64;
constexpr std::size_t lanes = 16;
constexpr float lowest = std::numeric_limits<float>::lowest();

/// The best token so far: the greatest score, the lowest id of equals.
struct best_token {
  double score = -std::numeric_limits<double>::infinity();
  token_id token = 0;

  void offer(double other_score, token_id other) noexcept {
    if (other_score > score || (other_score == score && other < token)) {
      score = other_score;
      token = other;
    }
  }
};

/// The last token that is allowed, in the order of candidates.
struct border {
  float logit = lowest;
  token_id token = std::numeric_limits<token_id>::max();

  bool allows(float other_logit, token_id other) const noexcept {
    return other_logit > logit || (other_logit == logit && other <= token);
  }
};

/// Upper bounds, in f32, of logit / temperature + g for the tokens of one block of words; returns
/// the greatest. The word gives g <= -log(t) with t = 1 - u, and the exponent of t bounds that.
float bound_scores(const float* logits, const std::uint32_t* words, float inverse_temperature,
                   float* bounds) noexcept {
  std::array<float, lanes> greatest;
  greatest.fill(lowest);
  for (std::size_t i = 0; i < gumbel_block; i += lanes) {
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      const auto half = static_cast<std::int32_t>(~words[i + lane] >> 1);
      const float t = static_cast<float>(half) + 0.25F;
      const std::int32_t exponent = (std::bit_cast<std::int32_t>(t) >> 23) - 127;
      const float noise = static_cast<float>(31 - exponent) * 0.69314724F;
      const float bound = logits[i + lane] * inverse_temperature + noise;
      bounds[i + lane] = bound;
      greatest[lane] = bound > greatest[lane] ? bound : greatest[lane];
    }
  }
  return *std::max_element(greatest.begin(), greatest.end());
}

/// The arg max over all tokens that `last` allows. Only tokens whose bound reaches the best score
/// so far are scored exactly: a handful of a large vocabulary.
token_id choose_from_all(std::span<const float> logits, double temperature, const gumbel_key& key,
                         token_id likely, border last = {}) {
  const auto score = [&](token_id token) {
    return static_cast<double>(logits[static_cast<std::size_t>(token)]) / temperature +
           gumbel(key, token);
  };
  best_token best;
  best.offer(score(likely), likely);
  const auto inverse = static_cast<float>(1.0 / temperature);
  alignas(64) std::array<std::uint32_t, gumbel_block> words;
  alignas(64) std::array<float, gumbel_block> bounds;
  alignas(64) std::array<float, gumbel_block> tail;
  for (std::size_t first = 0; first < logits.size(); first += gumbel_block) {
    const std::size_t count = std::min(gumbel_block, logits.size() - first);
    const float* values = logits.data() + first;
    if (count < gumbel_block) {
      tail.fill(lowest);
      std::copy_n(values, count, tail.begin());
      values = tail.data();
    }
    gumbel_words(key, static_cast<token_id>(first), words);
    // The slack is far above the rounding of the bounds, which are of the size of the best score.
    const auto enough = [&] {
      return static_cast<float>(best.score - 0.01 - 1e-5 * std::abs(best.score));
    };
    if (bound_scores(values, words.data(), inverse, bounds.data()) < enough())
      continue;
    for (std::size_t i = 0; i < count; ++i)
      if (bounds[i] >= enough() && last.allows(values[i], static_cast<token_id>(first + i)))
        best.offer(score(static_cast<token_id>(first + i)), static_cast<token_id>(first + i));
  }
  return best.token;
}

} // namespace

void sampler::scan(std::span<const float> logits) {
  block_greatest_.resize((logits.size() + block - 1) / block);
  // A product with zero is zero for finite numbers and NaN for all others.
  std::array<float, lanes> zeros{};
  for (std::size_t b = 0; b < block_greatest_.size(); ++b) {
    const std::size_t first = b * block;
    const std::size_t count = std::min(block, logits.size() - first);
    std::array<float, lanes> greatest;
    greatest.fill(lowest);
    std::size_t i = 0;
    for (; i + lanes <= count; i += lanes) {
      for (std::size_t lane = 0; lane < lanes; ++lane) {
        const float x = logits[first + i + lane];
        zeros[lane] += x * 0.0F;
        greatest[lane] = x > greatest[lane] ? x : greatest[lane];
      }
    }
    for (; i < count; ++i) {
      zeros[0] += logits[first + i] * 0.0F;
      greatest[0] = std::max(greatest[0], logits[first + i]);
    }
    block_greatest_[b] = *std::max_element(greatest.begin(), greatest.end());
  }
  finite_ = std::all_of(zeros.begin(), zeros.end(), [](float zero) { return zero == 0.0F; });
  greatest_ = *std::max_element(block_greatest_.begin(), block_greatest_.end());
}

token_id sampler::first_of_greatest(std::span<const float> logits) const {
  const auto at = std::find(block_greatest_.begin(), block_greatest_.end(), greatest_);
  const auto first = logits.begin() + (at - block_greatest_.begin()) * std::ptrdiff_t{block};
  return static_cast<token_id>(std::find(first, logits.end(), greatest_) - logits.begin());
}

void sampler::collect(std::span<const float> logits, float least) {
  candidates_.clear();
  for (std::size_t b = 0; b < block_greatest_.size(); ++b) {
    if (block_greatest_[b] < least)
      continue;
    const std::size_t end = std::min(logits.size(), (b + 1) * block);
    for (std::size_t i = b * block; i < end; ++i)
      if (logits[i] >= least)
        candidates_.push_back({logits[i], static_cast<token_id>(i), 0});
  }
}

void sampler::keep_top_k(std::span<const float> logits, float least, std::size_t k) {
  const auto above = [](const candidate& a, const candidate& b) { return a.logit > b.logit; };
  if (k <= block_greatest_.size()) {
    // The k-th greatest of the blocks' greatest logits is at most the k-th greatest logit.
    selection_ = block_greatest_;
    const auto kth = selection_.begin() + static_cast<std::ptrdiff_t>(k - 1);
    std::nth_element(selection_.begin(), kth, selection_.end(), std::greater<>{});
    least = std::max(least, *kth);
  }
  collect(logits, least);
  if (candidates_.size() <= k)
    return;
  const auto kth = candidates_.begin() + static_cast<std::ptrdiff_t>(k - 1);
  std::nth_element(candidates_.begin(), kth, candidates_.end(), above);
  std::erase_if(candidates_, [bound = kth->logit](const candidate& c) { return c.logit < bound; });
}

void sampler::keep_top_p(float top_p) {
  std::uint64_t total = 0;
  for (candidate& c : candidates_) {
    const double share =
        stable_exp((static_cast<double>(c.logit) - static_cast<double>(greatest_)) / temperature_);
    c.mass = static_cast<std::uint64_t>(share * 0x1p38 + 0.5);
    total += c.mass;
  }
  const auto wanted = static_cast<std::uint64_t>(
      std::ceil(static_cast<double>(top_p) * static_cast<double>(total)));
  const auto before = [](const candidate& a, const candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  };
  // Halves the range in which the last kept one lies; `sum` is the mass before the range.
  auto begin = candidates_.begin();
  auto end = candidates_.end();
  std::uint64_t sum = 0;
  while (end - begin > 1) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, before);
    std::uint64_t half = sum;
    for (auto at = begin; at != middle; ++at)
      half += at->mass;
    if (half >= wanted) {
      end = middle;
    } else {
      sum = half;
      begin = middle;
    }
  }
  candidates_.erase(end, candidates_.end());
}

result<token_id> sampler::sample(std::span<const float> logits, const sampling_params& params,
                                 std::uint32_t position) {
  scan(logits);
  if (!finite_)
    return fail(errc::corrupt_data,
                fmt::format("the model's logits for position {} are not finite numbers", position));
  const token_id likely = first_of_greatest(logits);
  if (params.temperature < greedy_temperature)
    return likely;
  temperature_ = static_cast<double>(std::max(params.temperature, least_temperature));
  const gumbel_key key{.seed = params.seed, .choice = params.choice, .position = position};
  const bool top_k = params.top_k > 0 && static_cast<std::size_t>(params.top_k) < logits.size();
  const bool min_p = params.min_p > 0;
  least_ = lowest;
  if (min_p)
    least_ = std::min(greatest_, static_cast<float>(static_cast<double>(greatest_) +
                                                    temperature_ * stable_log(params.min_p)));
  if (!top_k && !min_p && params.top_p >= 1)
    return choose_from_all(logits, temperature_, key, likely);
  // Tokens so unlikely that their mass rounds to nothing are outside of every top_p.
  if (params.top_p < 1)
    least_ =
        std::max(least_, static_cast<float>(static_cast<double>(greatest_) - 27.1 * temperature_));
  if (top_k)
    keep_top_k(logits, least_, static_cast<std::size_t>(params.top_k));
  else
    collect(logits, least_);
  if (params.top_p < 1)
    keep_top_p(params.top_p);
  border last{.logit = greatest_, .token = 0};
  for (const candidate& c : candidates_)
    if (!last.allows(c.logit, c.token))
      last = {.logit = c.logit, .token = c.token};
  if (candidates_.size() > 1000)
    return choose_from_all(logits, temperature_, key, likely, last);
  best_token best;
  for (const candidate& c : candidates_)
    best.offer(static_cast<double>(c.logit) / temperature_ + gumbel(key, c.token), c.token);
  return best.token;
}

} // namespace troupe::engine
