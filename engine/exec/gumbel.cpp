#include "engine/exec/gumbel.hpp"

#include "engine/exec/stable_math.hpp"

#include "troupe/base/prng.hpp"

#include <array>

namespace troupe::engine {

namespace {

constexpr std::size_t counters = gumbel_block / 4;

/// Philox over adjacent counters, lane by lane so that the compiler can use vectors. Integers only:
/// every instruction set gives the same words.
[[gnu::always_inline]] inline void make_words(const gumbel_key& key, std::uint32_t first,
                                              std::uint32_t* words) noexcept {
  alignas(64) std::array<std::uint32_t, counters> c0;
  alignas(64) std::array<std::uint32_t, counters> c1;
  alignas(64) std::array<std::uint32_t, counters> c2;
  alignas(64) std::array<std::uint32_t, counters> c3;
  for (std::size_t lane = 0; lane < counters; ++lane) {
    c0[lane] = first + static_cast<std::uint32_t>(lane);
    c1[lane] = key.position;
    c2[lane] = key.choice;
    c3[lane] = 0;
  }
  auto k0 = static_cast<std::uint32_t>(key.seed);
  auto k1 = static_cast<std::uint32_t>(key.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (std::size_t lane = 0; lane < counters; ++lane) {
      const std::uint64_t product0 = std::uint64_t{0xD2511F53U} * c0[lane];
      const std::uint64_t product1 = std::uint64_t{0xCD9E8D57U} * c2[lane];
      c0[lane] = static_cast<std::uint32_t>(product1 >> 32) ^ c1[lane] ^ k0;
      c1[lane] = static_cast<std::uint32_t>(product1);
      c2[lane] = static_cast<std::uint32_t>(product0 >> 32) ^ c3[lane] ^ k1;
      c3[lane] = static_cast<std::uint32_t>(product0);
    }
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  for (std::size_t lane = 0; lane < counters; ++lane) {
    words[4 * lane] = c0[lane];
    words[4 * lane + 1] = c1[lane];
    words[4 * lane + 2] = c2[lane];
    words[4 * lane + 3] = c3[lane];
  }
}

using make_words_function = void (*)(const gumbel_key&, std::uint32_t, std::uint32_t*) noexcept;

void make_words_plain(const gumbel_key& key, std::uint32_t first, std::uint32_t* words) noexcept {
  make_words(key, first, words);
}

#if defined(__x86_64__)
[[gnu::target("avx2")]] void make_words_avx2(const gumbel_key& key, std::uint32_t first,
                                             std::uint32_t* words) noexcept {
  make_words(key, first, words);
}

[[gnu::target("avx512f,prefer-vector-width=512")]] void
make_words_avx512(const gumbel_key& key, std::uint32_t first, std::uint32_t* words) noexcept {
  make_words(key, first, words);
}
#endif

make_words_function choose() noexcept {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f"))
    return make_words_avx512;
  if (__builtin_cpu_supports("avx2"))
    return make_words_avx2;
#endif
  return make_words_plain;
}

} // namespace

double gumbel_of_word(std::uint32_t word) noexcept {
  const double u = (static_cast<double>(word) + 0.5) * 0x1p-32;
  return -stable_log(-stable_log(u));
}

double gumbel(const gumbel_key& key, token_id token) noexcept {
  const auto index = static_cast<std::uint32_t>(token);
  const auto words = philox4x32(
      {index / 4, key.position, key.choice, 0},
      {static_cast<std::uint32_t>(key.seed), static_cast<std::uint32_t>(key.seed >> 32)});
  return gumbel_of_word(words[index % 4]);
}

void gumbel_words(const gumbel_key& key, token_id first,
                  std::span<std::uint32_t, gumbel_block> words) noexcept {
  static const make_words_function make = choose();
  make(key, static_cast<std::uint32_t>(first) / 4, words.data());
}

} // namespace troupe::engine
