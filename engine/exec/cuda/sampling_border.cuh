#pragma once

#include "engine/exec/cuda/sampling.hpp"
#include "engine/exec/stable_math.hpp"

#include <cfloat>
#include <climits>
#include <cstdint>

/// The last token that top_k, top_p and min_p allow, found by one block in a row's logits.
namespace troupe::engine::cuda {

inline constexpr int border_threads = 1024;
inline constexpr int listed_most = 3072;

using word64 = unsigned long long;

/// A token and how good it is; of equals the lower id wins.
template <class Score>
struct offer {
  Score score;
  std::int32_t token;

  __device__ void take(const offer& other) {
    if (other.score > score || (other.score == score && other.token < token))
      *this = other;
  }
};

/// Floats in the order of unsigned words; both zeros are one.
__device__ inline std::uint32_t key_of(float x) {
  const std::uint32_t bits = x == 0 ? 0U : __float_as_uint(x);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

__device__ inline float float_of(std::uint32_t key) {
  return __uint_as_float((key & 0x80000000U) != 0 ? key & 0x7FFFFFFFU : ~key);
}

/// Where a descending sum over keys reaches what is wanted.
struct selection {
  std::uint32_t key;
  /// The weight of all greater keys.
  word64 before;
};

/// The shared memory of a search, and the search itself: by eight bits of the key at a time.
struct selector {
  word64 histogram[256];
  std::uint32_t digit;
  word64 before;

  /// In warp 0: the greatest digit at which the sum from the top reaches `wanted`.
  __device__ void find_digit(word64 wanted) {
    const int lane = static_cast<int>(threadIdx.x);
    word64 own = 0;
    for (int i = 0; i < 8; ++i)
      own += histogram[255 - lane * 8 - i];
    word64 sum = own;
    for (int step = 1; step < 32; step *= 2) {
      const word64 other = __shfl_up_sync(0xFFFFFFFFU, sum, step);
      sum += lane >= step ? other : 0;
    }
    const unsigned reached = __ballot_sync(0xFFFFFFFFU, sum >= wanted);
    const int owner = reached == 0 ? 31 : __ffs(static_cast<int>(reached)) - 1;
    if (lane != owner)
      return;
    word64 at = sum - own;
    int bin = 255 - lane * 8;
    for (int i = 0; i < 7 && at + histogram[bin] < wanted; ++i)
      at += histogram[bin--];
    digit = static_cast<std::uint32_t>(bin);
    before = at;
  }

  /// `each(visit)` calls visit(key, weight) for this thread's elements. Collective.
  template <class Each>
  __device__ selection find(word64 wanted, Each each) {
    selection found{0, 0};
    for (int shift = 24; shift >= 0; shift -= 8) {
      for (int i = static_cast<int>(threadIdx.x); i < 256; i += border_threads)
        histogram[i] = 0;
      __syncthreads();
      const std::uint32_t prefix = found.key;
      each([&](std::uint32_t key, word64 weight) {
        if (static_cast<std::uint64_t>(key) >> (shift + 8) ==
            static_cast<std::uint64_t>(prefix) >> (shift + 8))
          atomicAdd(&histogram[key >> shift & 255U], weight);
      });
      __syncthreads();
      if (threadIdx.x < 32)
        find_digit(wanted - found.before);
      __syncthreads();
      found.key |= digit << shift;
      found.before += before;
      __syncthreads();
    }
    return found;
  }
};

/// The search for the last allowed token of one row, by one block.
struct border_search {
  const float* logits;
  std::int32_t vocabulary;
  sampling_row how;
  float greatest;
  selector& select;
  /// The tokens from `floor` on, when they are few.
  std::int32_t* listed;
  std::int32_t& listed_count;
  float floor = -FLT_MAX;

  template <class Visit>
  __device__ void each(Visit visit) const {
    const bool few = listed_count <= listed_most;
    const std::int32_t count = few ? listed_count : vocabulary;
    for (std::int32_t i = static_cast<std::int32_t>(threadIdx.x); i < count; i += border_threads) {
      const std::int32_t token = few ? listed[i] : i;
      if (logits[token] >= floor)
        visit(logits[token], token);
    }
  }

  /// The floor by min_p, and the one below which masses round to nothing.
  __device__ void set_floor() {
    const auto top = static_cast<double>(greatest);
    if (how.min_p > 0)
      floor =
          fminf(greatest, static_cast<float>(top + how.temperature *
                                                       stable_log(static_cast<double>(how.min_p))));
    if (how.top_p < 1)
      floor = fmaxf(floor, static_cast<float>(top - 27.1 * how.temperature));
  }

  /// Raises the floor to the k-th greatest of the threads' greatest logits, which is at most the
  /// k-th greatest logit, so that few tokens are left to look at.
  __device__ void raise_floor() {
    float own = -FLT_MAX;
    for (std::int32_t i = static_cast<std::int32_t>(threadIdx.x); i < vocabulary;
         i += border_threads)
      own = fmaxf(own, logits[i]);
    const selection kth = select.find(static_cast<word64>(how.top_k),
                                      [&](auto visit) { visit(key_of(own), word64{1}); });
    floor = fmaxf(floor, float_of(kth.key));
  }

  __device__ void list() {
    if (threadIdx.x == 0)
      listed_count = 0;
    __syncthreads();
    for (std::int32_t i = static_cast<std::int32_t>(threadIdx.x); i < vocabulary;
         i += border_threads)
      if (logits[i] >= floor) {
        const std::int32_t at = atomicAdd(&listed_count, 1);
        if (at < listed_most)
          listed[at] = i;
      }
    __syncthreads();
  }

  __device__ word64 mass(float logit) const {
    const double share =
        stable_exp((static_cast<double>(logit) - static_cast<double>(greatest)) / how.temperature);
    return static_cast<word64>(share * 0x1p38 + 0.5);
  }

  /// The last token of the smallest set of likeliest ones whose mass reaches top_p.
  __device__ offer<float> end_of_top_p() {
    __shared__ word64 total;
    if (threadIdx.x == 0)
      total = 0;
    __syncthreads();
    word64 own = 0;
    each([&](float logit, std::int32_t) { own += mass(logit); });
    atomicAdd(&total, own);
    __syncthreads();
    const auto wanted =
        static_cast<word64>(ceil(static_cast<double>(how.top_p) * static_cast<double>(total)));
    const selection last = select.find(wanted, [&](auto visit) {
      each([&](float logit, std::int32_t) { visit(key_of(logit), mass(logit)); });
    });
    const float logit = float_of(last.key);
    const word64 one = mass(logit) == 0 ? 1 : mass(logit);
    const word64 equals = (wanted - last.before + one - 1) / one;
    const selection token = select.find(equals == 0 ? 1 : equals, [&](auto visit) {
      each([&](float other, std::int32_t id) {
        if (other == logit)
          visit(~static_cast<std::uint32_t>(id), word64{1});
      });
    });
    return {logit, static_cast<std::int32_t>(~token.key)};
  }

  __device__ offer<float> run() {
    set_floor();
    if (how.top_k > 0 && how.top_k <= border_threads)
      raise_floor();
    list();
    if (how.top_k > 0 && listed_count > how.top_k)
      floor = float_of(
          select
              .find(static_cast<word64>(how.top_k),
                    [&](auto visit) {
                      each([&](float logit, std::int32_t) { visit(key_of(logit), word64{1}); });
                    })
              .key);
    return how.top_p < 1 ? end_of_top_p() : offer<float>{floor, INT_MAX};
  }
};

} // namespace troupe::engine::cuda
