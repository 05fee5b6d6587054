#pragma once

#include "troupe/base/ids.hpp"

#include <cstdint>
#include <span>

namespace troupe::engine {

/// Names one draw of the noise g: which request, which of its answers, which position.
struct gumbel_key {
  std::uint64_t seed = 0;
  std::uint32_t choice = 0;
  /// Index of the sampled token in its sequence, prompt and output together.
  std::uint32_t position = 0;
};

/// -log(-log((word + 0.5) / 2^32)): a standard Gumbel number from a uniform word. From about -3.13
/// to 22.87, the same bits on every machine.
[[nodiscard]] double gumbel_of_word(std::uint32_t word) noexcept;

/// The noise of one token: gumbel_of_word(philox4x32({token / 4, position, choice, 0}, seed)[token
/// % 4]). This is the definition of what a seed means; executors may compute it as they like, but
/// not something else.
[[nodiscard]] double gumbel(const gumbel_key& key, token_id token) noexcept;

/// Tokens whose words gumbel_words() makes at once.
inline constexpr std::size_t gumbel_block = 256;

/// The words behind the noise of tokens [first, first + gumbel_block).
/// @pre    first is a multiple of 4
/// @cost   about a nanosecond a token
void gumbel_words(const gumbel_key& key, token_id first,
                  std::span<std::uint32_t, gumbel_block> words) noexcept;

} // namespace troupe::engine
