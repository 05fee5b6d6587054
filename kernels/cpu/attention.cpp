#include "kernels/cpu/kernel_table.hpp"
#include "kernels/cpu/kv_layout.hpp"
#include "kernels/cpu/ops.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <limits>

// Attention over the paged cache. An item is up to 28 rows of one sequence and one KV head, a row
// being one query head at one position; it walks the tiles of 64 positions from position 0 to
// its last row's. Scores and values are register-tile products with the slabs of the cache.
// Roofline: decode reads K and V once; prefill is bound by the multipliers. A row that has no
// position in a tile passes through it unchanged, so the grouping of rows changes no bit.
namespace troupe::kernels::cpu {

namespace {

constexpr std::int64_t rows_per_item = 28;
constexpr std::int64_t tile_positions = 64;
constexpr std::int64_t slabs_per_tile = tile_positions / slab_positions;

struct item {
  const sequence_rows* sequence;
  std::int64_t kv_head;
  /// Rows of the group, numbered position by position, the heads of a position adjacent.
  std::int64_t begin;
  std::int64_t rows;
};

/// The member's scratch, cut up.
struct workspace {
  std::byte* q;
  float* scores;
  std::byte* p;
  float* acc;
  std::byte* tail;
  float row_max[rows_per_item];
  float row_sum[rows_per_item];
  float rescale[rows_per_item];
  std::int32_t valid[rows_per_item];

  explicit workspace(std::span<std::byte> scratch) noexcept {
    constexpr std::size_t wide = rows_per_item * max_head_dim * sizeof(float);
    constexpr std::size_t narrow = rows_per_item * tile_positions * sizeof(float);
    static_assert(2 * wide + 2 * narrow + slab_positions * max_head_dim * sizeof(float) <=
                  member::scratch_bytes);
    q = scratch.data();
    acc = reinterpret_cast<float*>(q + wide);
    scores = reinterpret_cast<float*>(q + 2 * wide);
    p = q + 2 * wide + narrow;
    tail = q + 2 * wide + 2 * narrow;
  }
};

class walker {
public:
  walker(const kernel_table& kernels, const attention_args& args, std::span<std::byte> scratch)
      : kernels_{kernels}, args_{args}, cache_{args.cache}, work_{scratch},
        group_{args.heads / args.cache.kv_heads}, dim_{padded_dim(args.cache.dim)},
        element_{size_of(args.cache.type)} {}

  void run(const item& it) {
    load(it);
    const std::int64_t last = position(it, it.rows - 1);
    for (std::int64_t start = 0; start <= last; start += tile_positions)
      tile(it, start, std::min(slabs_per_tile, (last - start) / slab_positions + 1));
    store(it);
  }

private:
  [[nodiscard]] std::int64_t position(const item& it, std::int64_t row) const {
    return it.sequence->first_position + (it.begin + row) / group_;
  }
  /// Element index of the row's head in q and in out.
  [[nodiscard]] std::int64_t place(const item& it, std::int64_t row, std::int64_t stride) const {
    const std::int64_t number = it.begin + row;
    return (it.sequence->row_begin + number / group_) * stride +
           (it.kv_head * group_ + number % group_) * cache_.dim;
  }

  void load(const item& it) {
    const auto bytes = static_cast<std::size_t>(cache_.dim) * element_;
    const auto padded = static_cast<std::size_t>(dim_) * element_;
    for (std::int64_t row = 0; row < it.rows; ++row) {
      std::byte* to = work_.q + static_cast<std::size_t>(row) * padded;
      const auto from = static_cast<std::size_t>(place(it, row, args_.q_stride)) * element_;
      std::memcpy(to, static_cast<const std::byte*>(args_.q) + from, bytes);
      std::memset(to + bytes, 0, padded - bytes);
    }
    std::fill_n(work_.acc, it.rows * dim_, 0.0F);
    std::fill_n(work_.row_max, it.rows, -std::numeric_limits<float>::infinity());
    std::fill_n(work_.row_sum, it.rows, 0.0F);
  }

  void tile(const item& it, std::int64_t start, std::int64_t slabs) {
    const void* k[slabs_per_tile];
    const void* v[slabs_per_tile];
    for (std::int64_t i = 0; i < slabs_per_tile; ++i) {
      const std::int64_t first = start + std::min(i, slabs - 1) * slab_positions;
      const auto at =
          static_cast<std::size_t>(slab_offset(cache_, *it.sequence, first, it.kv_head)) * element_;
      k[i] = static_cast<const std::byte*>(cache_.k) + at;
      v[i] = static_cast<const std::byte*>(cache_.v) + at;
    }
    const std::int64_t stored = it.sequence->first_position + it.sequence->rows;
    const std::int64_t last_slab = start + (slabs - 1) * slab_positions;
    if (stored < last_slab + slab_positions)
      v[slabs - 1] = clean_tail(v[slabs - 1], stored - last_slab);
    for (std::int64_t row = 0; row < it.rows; ++row)
      work_.valid[row] = static_cast<std::int32_t>(
          std::clamp<std::int64_t>(position(it, row) + 1 - start, 0, tile_positions));
    compute(static_cast<std::int32_t>(it.rows), k, v, static_cast<std::int32_t>(slabs));
  }

  /// A copy of a slab of V with zeros in the positions that were never written: what a block held
  /// before may be a NaN, and zero times NaN is not zero.
  const void* clean_tail(const void* slab, std::int64_t stored) {
    const auto position_bytes = static_cast<std::size_t>(dim_) * element_;
    const bool pairs = cache_.type == dtype::bf16;
    const std::int64_t whole = pairs ? stored / 2 * 2 : stored;
    const auto kept = static_cast<std::size_t>(whole) * position_bytes;
    std::memcpy(work_.tail, slab, kept);
    std::memset(work_.tail + kept, 0, slab_positions * position_bytes - kept);
    if (whole != stored) {
      const auto* from =
          reinterpret_cast<const std::uint16_t*>(static_cast<const std::byte*>(slab) + kept);
      auto* to = reinterpret_cast<std::uint16_t*>(work_.tail + kept);
      for (std::int64_t d = 0; d < dim_; ++d)
        to[2 * d] = from[2 * d];
    }
    return work_.tail;
  }

  void compute(std::int32_t rows, const void* const* k, const void* const* v, std::int32_t slabs) {
    constexpr float log2_e = 1.44269504F;
    const bool bf16 = cache_.type == dtype::bf16;
    const score_args score{.q = work_.q,
                           .slabs = k,
                           .dim = dim_,
                           .scores = work_.scores,
                           .rows = rows,
                           .slab_count = slabs};
    (bf16 ? kernels_.score_bf16 : kernels_.score_f32)(score);
    const softmax_args softmax{.scores = work_.scores,
                               .p = work_.p,
                               .row_max = work_.row_max,
                               .row_sum = work_.row_sum,
                               .rescale = work_.rescale,
                               .valid = work_.valid,
                               .scale_log2 = args_.scale * log2_e,
                               .rows = rows};
    (bf16 ? kernels_.softmax_bf16 : kernels_.softmax_f32)(softmax);
    const value_args value{.p = work_.p,
                           .slabs = v,
                           .dim = dim_,
                           .rescale = work_.rescale,
                           .acc = work_.acc,
                           .rows = rows,
                           .slab_count = slabs};
    (bf16 ? kernels_.value_bf16 : kernels_.value_f32)(value);
  }

  void store(const item& it) {
    for (std::int64_t row = 0; row < it.rows; ++row) {
      const float* acc = work_.acc + row * dim_;
      const float scale = 1.0F / work_.row_sum[row];
      const std::int64_t at = place(it, row, args_.out_stride);
      if (args_.out_type == dtype::f32)
        kernels_.write_f32(acc, scale, static_cast<float*>(args_.out) + at, cache_.dim);
      else
        kernels_.write_bf16(acc, scale, static_cast<std::uint16_t*>(args_.out) + at, cache_.dim);
    }
  }

  const kernel_table& kernels_;
  const attention_args& args_;
  const kv_cache& cache_;
  workspace work_;
  std::int64_t group_;
  std::int64_t dim_;
  std::size_t element_;
};

/// Visits the items of all sequences with their cost in tiles, in a fixed order.
template <class Visit>
void for_each_item(const attention_args& args, Visit visit) {
  const std::int64_t group = args.heads / args.cache.kv_heads;
  for (const sequence_rows& sequence : args.sequences) {
    const std::int64_t rows = sequence.rows * group;
    for (std::int64_t kv_head = 0; kv_head < args.cache.kv_heads; ++kv_head)
      for (std::int64_t begin = 0; begin < rows; begin += rows_per_item) {
        const std::int64_t count = std::min(rows_per_item, rows - begin);
        const std::int64_t last = sequence.first_position + (begin + count - 1) / group;
        visit(item{&sequence, kv_head, begin, count}, (last / tile_positions + 1) * (count + 4));
      }
  }
}

} // namespace

void attention(member& m, const attention_args& args) {
  std::int64_t total = 0;
  if (m.size() > 1)
    for_each_item(args, [&](const item&, std::int64_t cost) { total += cost; });
  const share mine =
      m.size() > 1 ? m.split(total) : share{0, std::numeric_limits<std::int64_t>::max()};
  walker walk{m.kernels(), args, m.scratch()};
  std::int64_t before = 0;
  for_each_item(args, [&](const item& it, std::int64_t cost) {
    // An item is whose its middle is.
    const std::int64_t middle = before + cost / 2;
    if (middle >= mine.begin && middle < mine.end)
      walk.run(it);
    before += cost;
  });
}

result<void> check(const attention_args& args) {
  if (auto checked = check_paged(args.cache, args.heads, args.sequences); !checked)
    return checked;
  if (args.out_type == dtype::f16)
    return fail(errc::unsupported, "attention writes f32 or bf16, not f16");
  const std::int64_t width = std::int64_t{args.heads} * args.cache.dim;
  if (args.q == nullptr || args.out == nullptr || args.q_stride < width || args.out_stride < width)
    return fail(errc::bad_shape, fmt::format("{} heads of {} with strides {} and {}", args.heads,
                                             args.cache.dim, args.q_stride, args.out_stride));
  return {};
}

} // namespace troupe::kernels::cpu
