#pragma once

#include "kernels/cuda/attention_tiles.cuh"

#include <cmath>
#include <cstdint>

/// The arithmetic of 16 rows of attention in a warp: within a split an online softmax over tiles of
/// 64 positions, between splits join_totals() in the order of splits.
namespace troupe::kernels::cuda {

/// How two running results are joined: new value = left * old + right * part.
struct join_scales {
  float left;
  float right;
};

/// Joins `part` to `total`. A part of masked positions only changes nothing.
__device__ __forceinline__ join_scales join_totals(row_total& total, const row_total& part) {
  if (part.most == -INFINITY && part.sum == 0)
    return {1, 0};
  const float most = fmaxf(total.most, part.most);
  const join_scales scales{fast_exp2(total.most - most), fast_exp2(part.most - most)};
  total.sum = __fmaf_rn(total.sum, scales.left, __fmul_rn(part.sum, scales.right));
  total.most = most;
  return scales;
}

__device__ __forceinline__ float joined(float left, float right, const join_scales& scales) {
  return __fmaf_rn(left, scales.left, __fmul_rn(right, scales.right));
}

/// Floats of one partial result of one KV head.
template <int Dim>
inline constexpr std::int64_t partial_size = partial_floats(Dim);

/// What a warp holds of its 16 rows; a thread has parts of rows lane / 4 and lane / 4 + 8. `Places`
/// tells where the chunks of a tile of K or V lie in shared memory, of `Span` positions.
template <class T, int Dim, class Places, int Span = tile>
struct warp_rows {
  std::uint32_t q[Dim / 16][4];
  float acc[Dim / 8][4];
  row_total at[2];
  int position[2];

  __device__ void load(const item_view<Dim>& view, int first_row) {
    const auto* const from = static_cast<const T*>(view.args.q);
    load_heads(view, first_row,
               [&](int row) { return from + view.place(row, view.args.q_stride); });
  }
  /// `head_of` tells where the head is of a row that there is.
  template <class Head>
  __device__ void load_heads(const item_view<Dim>& view, int first_row, Head head_of) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = first_row + lane / 4 + 8 * h;
      position[h] = view.position(row);
      const bool live = view.live(row);
      const auto* const head = head_of(live ? row : 0);
#pragma unroll
      for (int k = 0; k < Dim / 16; ++k) {
        const auto* const pair = head + k * 16 + lane % 4 * 2;
        q[k][h] = live ? *reinterpret_cast<const std::uint32_t*>(pair) : 0;
        q[k][h + 2] = live ? *reinterpret_cast<const std::uint32_t*>(pair + 8) : 0;
      }
    }
  }

  __device__ void reset() {
#pragma unroll
    for (int i = 0; i < Dim / 8 * 4; ++i)
      acc[i / 4][i % 4] = 0;
    at[0] = at[1] = {-INFINITY, 0};
  }

  /// s = q k^T for the positions of a tile.
  __device__ void score(float (&s)[Span / 8][4], std::uint32_t k) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int i = 0; i < Span / 8 * 4; ++i)
      s[i / 4][i % 4] = 0;
    const std::uint32_t mine = Places::at(k, lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
    for (int d = 0; d < Dim / 16; ++d)
#pragma unroll
      for (int j = 0; j < Span / 16; ++j) {
        std::uint32_t b[4];
        load_matrices(b, Places::beside(mine, j, d));
        mma<T>(s[2 * j], q[d], b[0], b[1]);
        mma<T>(s[2 * j + 1], q[d], b[2], b[3]);
      }
  }

  /// Turns scores into probabilities of the running softmax and rescales what is there. Rows 8 to
  /// 15 are left as they are unless `upper`.
  __device__ void soften(float (&s)[Span / 8][4], int start, float scale_log2, bool upper = true) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (h == 1 && !upper) {
#pragma unroll
        for (int i = 0; i < Span / 4; ++i)
          s[i / 2][2 + i % 2] = 0;
        break;
      }
      if (start + Span - 1 > position[h]) {
#pragma unroll
        for (int i = 0; i < Span / 4; ++i)
          if (start + i / 2 * 8 + lane % 4 * 2 + i % 2 > position[h])
            s[i / 2][2 * h + i % 2] = -INFINITY;
      }
      float greatest = -INFINITY;
#pragma unroll
      for (int i = 0; i < Span / 4; ++i)
        greatest = fmaxf(greatest, s[i / 2][2 * h + i % 2]);
      greatest = fmaxf(greatest, __shfl_xor_sync(0xFFFFFFFFU, greatest, 1));
      greatest = fmaxf(greatest, __shfl_xor_sync(0xFFFFFFFFU, greatest, 2));
      const float most = fmaxf(at[h].most, greatest * scale_log2);
      const float shift = most == -INFINITY ? 0.0F : most;
      const float rescale = fast_exp2(at[h].most - shift);
      float sum = 0;
#pragma unroll
      for (int i = 0; i < Span / 4; ++i) {
        float& x = s[i / 2][2 * h + i % 2];
        x = fast_exp2(fmaf(x, scale_log2, -shift));
        sum += x;
      }
      at[h].sum = fmaf(at[h].sum, rescale, sum);
      at[h].most = most;
#pragma unroll
      for (int i = 0; i < Dim / 8 * 2; ++i)
        acc[i / 2][2 * h + i % 2] *= rescale;
    }
  }

  /// acc += p v.
  __device__ void weigh(const float (&p)[Span / 8][4], std::uint32_t v) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const std::uint32_t mine = Places::at(v, lane / 8 % 2 * 8 + lane % 8, lane / 16);
#pragma unroll
    for (int j = 0; j < Span / 16; ++j) {
      const std::uint32_t a[4] = {pack_pair<T>(p[2 * j][0], p[2 * j][1]),
                                  pack_pair<T>(p[2 * j][2], p[2 * j][3]),
                                  pack_pair<T>(p[2 * j + 1][0], p[2 * j + 1][1]),
                                  pack_pair<T>(p[2 * j + 1][2], p[2 * j + 1][3])};
#pragma unroll
      for (int n = 0; n < Dim / 16; ++n) {
        std::uint32_t b[4];
        load_transposed(b, Places::beside(mine, j, n));
        mma<T>(acc[2 * n], a, b[0], b[1]);
        mma<T>(acc[2 * n + 1], a, b[2], b[3]);
      }
    }
  }

  /// Makes the sums of a row whole: until then each thread has its own columns' part.
  __device__ void end_split() {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      at[h].sum += __shfl_xor_sync(0xFFFFFFFFU, at[h].sum, 1);
      at[h].sum += __shfl_xor_sync(0xFFFFFFFFU, at[h].sum, 2);
    }
  }

  /// Floats that the total of a thread takes in shared memory, 32 threads apart.
  static constexpr int total_floats = Dim / 8 * 4 + 4;

  __device__ void put_total(float* total) const {
#pragma unroll
    for (int i = 0; i < Dim / 8 * 4; ++i)
      total[i * 32] = acc[i / 4][i % 4];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      total[(Dim / 8 * 4 + h) * 32] = at[h].most;
      total[(Dim / 8 * 4 + 2 + h) * 32] = at[h].sum;
    }
  }

  /// Makes this the total with this split joined to it.
  __device__ void join_to(const float* total) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      row_total sum{total[(Dim / 8 * 4 + h) * 32], total[(Dim / 8 * 4 + 2 + h) * 32]};
      const join_scales scales = join_totals(sum, at[h]);
      at[h] = sum;
#pragma unroll
      for (int i = 0; i < Dim / 8 * 2; ++i) {
        const int part = i / 2 * 4 + 2 * h + i % 2;
        acc[i / 2][2 * h + i % 2] = joined(total[part * 32], acc[i / 2][2 * h + i % 2], scales);
      }
    }
  }

  __device__ void store(const item_view<Dim>& view, int first_row) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    auto* const out = static_cast<T*>(view.args.out);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = first_row + lane / 4 + 8 * h;
      if (!view.live(row))
        continue;
      auto* const to = out + view.place(row, view.args.out_stride) + lane % 4 * 2;
      const float share = 1.0F / at[h].sum;
#pragma unroll
      for (int n = 0; n < Dim / 8; ++n)
        *reinterpret_cast<std::uint32_t*>(to + n * 8) =
            pack_pair<T>(acc[n][2 * h] * share, acc[n][2 * h + 1] * share);
    }
  }

  /// Leaves the result to be joined with others.
  __device__ void store_partial(const item_view<Dim>& view, float* partial) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = lane / 4 + 8 * h;
      if (!view.live(row))
        continue;
#pragma unroll
      for (int n = 0; n < Dim / 8; ++n)
        *reinterpret_cast<float2*>(partial + row * Dim + n * 8 + lane % 4 * 2) =
            make_float2(acc[n][2 * h], acc[n][2 * h + 1]);
      if (lane % 4 == 0) {
        partial[decode_tile_rows * Dim + row] = at[h].most;
        partial[decode_tile_rows * (Dim + 1) + row] = at[h].sum;
      }
    }
  }
};

/// Where the result of a split is left.
template <int Dim>
__device__ __forceinline__ float* partial_of(const decode_work<Dim>& work) {
  const attention_args& args = work.view.args;
  return args.partials +
         (std::int64_t{work.item.partial} * args.cache.kv_heads + work.view.kv_head) *
             partial_size<Dim>;
}

/// Stores what one warp has of all of an item.
template <class Rows, int Dim>
__device__ __forceinline__ void store_item(const Rows& rows, const decode_work<Dim>& work) {
  if (work.item.split < 0)
    rows.store(work.view, 0);
  else
    rows.store_partial(work.view, partial_of(work));
}

/// Counts an item as taken: so many were before. As many are counted as there are items: whoever
/// counts the last leaves a zero.
__device__ __forceinline__ int count_taken(std::int32_t* counter, int all) {
  const int taken = atomicAdd(counter, 1);
  if (taken == all - 1)
    *counter = 0;
  return taken;
}

/// The result of one row, as far as four of its columns go.
struct part_of_row {
  row_total at;
  float acc[4];

  __device__ void join(const part_of_row& next) {
    const join_scales scales = join_totals(at, next.at);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      acc[i] = joined(acc[i], next.acc[i], scales);
  }

  template <class T>
  __device__ void store(T* to) const {
    auto* const out = reinterpret_cast<std::uint32_t*>(to);
    const float share = 1.0F / at.sum;
    out[0] = pack_pair<T>(acc[0] * share, acc[1] * share);
    out[1] = pack_pair<T>(acc[2] * share, acc[3] * share);
  }
};

/// Joins partial results, `step` floats apart, in their order.
/// @param  place  of the first column in a partial result
template <int Dim>
__device__ part_of_row join_parts_of(const float* parts, std::int64_t step, int count, int place) {
  /// Parts that are under way together.
  constexpr int ahead = 8;
  part_of_row total{};
  for (int begin = 0; begin < count; begin += ahead) {
    part_of_row next[ahead];
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      const float* const from = parts + min(begin + i, count - 1) * step;
      const float4 x = *reinterpret_cast<const float4*>(from + place);
      const float* const row = from + decode_tile_rows * Dim + place / Dim;
      next[i] = {{row[0], row[decode_tile_rows]}, {x.x, x.y, x.z, x.w}};
    }
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      if (begin + i == 0)
        total = next[i];
      else if (begin + i < count)
        total.join(next[i]);
    }
  }
  return total;
}

} // namespace troupe::kernels::cuda
