#include "engine/exec/likelihood.hpp"

#include "engine/exec/stable_math.hpp"

#include <algorithm>
#include <array>
#include <numeric>

namespace troupe::engine {

namespace {

constexpr std::size_t lanes = 8;

/// The logarithm of the sum of exp(logit - greatest), summed in lanes and those in order.
double log_of_mass(std::span<const float> logits, double greatest) {
  std::array<double, lanes> sums{};
  std::size_t i = 0;
  for (; i + lanes <= logits.size(); i += lanes)
    for (std::size_t lane = 0; lane < lanes; ++lane)
      sums[lane] += stable_exp(static_cast<double>(logits[i + lane]) - greatest);
  for (; i < logits.size(); ++i)
    sums[0] += stable_exp(static_cast<double>(logits[i]) - greatest);
  return stable_log(std::accumulate(sums.begin(), sums.end(), 0.0));
}

/// The likeliest tokens by a heap of as many, whose front is the least of them.
std::vector<ranked_token> likeliest(std::span<const float> logits, std::size_t count) {
  const auto before = [](const ranked_token& a, const ranked_token& b) {
    return a.logprob != b.logprob ? a.logprob > b.logprob : a.token < b.token;
  };
  std::vector<ranked_token> kept;
  kept.reserve(count + 1);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (kept.size() == count && (count == 0 || logits[i] <= kept.front().logprob))
      continue;
    kept.push_back({static_cast<token_id>(i), logits[i]});
    std::ranges::push_heap(kept, before);
    if (kept.size() <= count)
      continue;
    std::ranges::pop_heap(kept, before);
    kept.pop_back();
  }
  std::ranges::sort_heap(kept, before);
  return kept;
}

} // namespace

token_logprobs likelihood_of(std::span<const float> logits, token_id chosen, std::int32_t top) {
  const float mine = logits[static_cast<std::size_t>(chosen)];
  const auto greatest = static_cast<double>(*std::ranges::max_element(logits));
  const double mass = log_of_mass(logits, greatest);
  const auto logprob = [&](float logit) {
    return static_cast<float>(static_cast<double>(logit) - greatest - mass);
  };
  const auto above = std::ranges::count_if(logits, [&](float logit) { return logit >= mine; });
  token_logprobs out{.chosen = {chosen, logprob(mine)},
                     .rank = static_cast<std::uint32_t>(above),
                     .top = likeliest(logits, static_cast<std::size_t>(top))};
  for (auto& one : out.top)
    one.logprob = logprob(one.logprob);
  return out;
}

} // namespace troupe::engine
