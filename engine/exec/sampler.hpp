#pragma once

#include "troupe/base/error.hpp"
#include "troupe/engine/request.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace troupe::engine {

/// Below this temperature the choice is greedy; from it to `least_temperature` it counts as that.
inline constexpr float greedy_temperature = 1e-5F;
inline constexpr float least_temperature = 0.01F;

/// Chooses next tokens. Holds working memory only: what it answers depends on its arguments alone.
/// One thread at a time; each thread of a team has its own.
///
/// Greedy is the token of the greatest logit, the lowest id of equals. Otherwise, as in vLLM:
/// logits are divided by the temperature; tokens with less than min_p times the greatest
/// probability go; of the rest, those below the k-th greatest logit go (equals of the k-th stay);
/// of the rest, renormalised, the smallest set of likeliest tokens whose probability reaches top_p
/// stays (of equal tokens the lower ids first). Of what stays, the token with the greatest
/// logit / temperature + gumbel(seed, choice, position, token) is chosen, which is a draw from
/// their distribution. All of it is in double and in a fixed order.
class sampler {
public:
  /// The token for `position`, the index in the sequence that it will have.
  /// @shape  logits [vocabulary] f32, not empty
  /// @errors corrupt_data: a logit is NaN or infinite
  /// @cost   with a vocabulary of 152,000 about 0.35 ms at temperature 1; more where top_p alone
  /// leaves
  ///         tens of thousands of tokens
  /// @source Maddison et al., "A* sampling" (2014), for the Gumbel-max method
  [[nodiscard]] result<token_id> sample(std::span<const float> logits,
                                        const sampling_params& params, std::uint32_t position);

private:
  /// A token that may be allowed. In the order of candidates, the greater logit goes first, then
  /// the lower id; what is allowed is always the first part of that order.
  struct candidate {
    float logit;
    token_id token;
    /// Its probability in units of 2^-38 of the greatest one, so that sums are exact in any order.
    std::uint64_t mass = 0;
  };

  void scan(std::span<const float> logits);
  [[nodiscard]] token_id first_of_greatest(std::span<const float> logits) const;
  void collect(std::span<const float> logits, float least);
  void keep_top_k(std::span<const float> logits, float least, std::size_t k);
  void keep_top_p(float top_p);

  /// The greatest logit of each block of 64, and of all.
  std::vector<float> block_greatest_;
  std::vector<float> selection_;
  float greatest_ = 0;
  bool finite_ = true;
  /// The temperature in use, and the least logit that min_p allows.
  double temperature_ = 1;
  float least_ = 0;
  std::vector<candidate> candidates_;
};

} // namespace troupe::engine
