#pragma once

#include "kernels/cuda/attention_tiles.cuh"

#include <utility>

/// Rope as a part of attention, for sequences of one row: its q is normed and turned in the
/// registers that multiply it, and its own k and v, which no page that came from the cache has yet,
/// are put there.
namespace troupe::kernels::cuda {

__device__ __forceinline__ float2 pair_at(const float* from, int column) {
  return *reinterpret_cast<const float2*>(from + column);
}

__device__ __forceinline__ float2 weighed(const float2& x, float scale, const float2& weight) {
  return {x.x * (scale * weight.x), x.y * (scale * weight.y)};
}

/// Turns two adjacent numbers of a head and their partners in its other half.
__device__ __forceinline__ void turn_pairs(float2& low, float2& high, const float2& cos,
                                           const float2& sin) {
  const float2 x = low, y = high;
  low = {x.x * cos.x - y.x * sin.x, x.y * cos.y - y.y * sin.y};
  high = {y.x * cos.x + x.x * sin.x, y.y * cos.y + x.y * sin.y};
}

/// Where that lies which is read of a row before its pages of K and V are: its heads of q that
/// share a KV head, its own k and v, and cos and sin of its position.
template <class T, int Dim>
struct row_places {
  const T* q;
  const T* key;
  const T* value;
  const float* cos;
  const float* sin;

  __device__ row_places(const rope_store_args& by, const item_view<Dim>& of) {
    const auto* const row = static_cast<const T*>(by.qkv) + of.sequence.row_begin * by.qkv_stride;
    const std::int64_t turn = std::int64_t{of.stored() - 1} * (Dim / 2);
    q = row + (of.kv_head * of.group + of.tile_begin) * Dim;
    key = row + (by.heads + of.kv_head) * Dim;
    value = key + by.cache.kv_heads * Dim;
    cos = by.cos + turn;
    sin = by.sin + turn;
  }
};

/// What two adjacent numbers of a head and their partners in its other half are weighed and turned
/// by.
struct pair_factors {
  float2 cos;
  float2 sin;
  float2 low;
  float2 high;

  /// @param weight  of the norm, or null
  template <class T, int Dim>
  __device__ pair_factors(const row_places<T, Dim>& from, const float* weight, int column) {
    cos = pair_at(from.cos, column);
    sin = pair_at(from.sin, column);
    low = weight == nullptr ? float2{1, 1} : pair_at(weight, column);
    high = weight == nullptr ? float2{1, 1} : pair_at(weight + Dim / 2, column);
  }

  /// @param scale  of the norm; 1 where there is none
  __device__ void turn(float2& l, float2& h, float scale) const {
    l = weighed(l, scale, low);
    h = weighed(h, scale, high);
    turn_pairs(l, h, cos, sin);
  }
};

__device__ __forceinline__ float square(const float2& x) { return fmaf(x.x, x.x, x.y * x.y); }

__device__ __forceinline__ float norm_scale(float squares, int dim, float eps) {
  return 1.0F / sqrtf(squares / static_cast<float>(dim) + eps);
}

/// Norms and turns the rows of q that a warp has loaded as they came from the product. Made before
/// these are there, for all that it reads has to come from L2.
template <class T, int Dim>
struct query_turn {
  static constexpr int chunks = Dim / 32;

  bool norms;
  float eps;
  pair_factors by[chunks][2];

  __device__ static int column(int chunk, int part) {
    return chunk * 16 + part * 8 + static_cast<int>(threadIdx.x) % 4 * 2;
  }

  template <std::size_t... I>
  __device__ query_turn(const rope_store_args& args, const row_places<T, Dim>& from,
                        std::index_sequence<I...>)
      : norms{args.q_norm != nullptr}, eps{args.eps}, by{{{from, args.q_norm, column(I, 0)},
                                                          {from, args.q_norm, column(I, 1)}}...} {}
  __device__ query_turn(const rope_store_args& args, const row_places<T, Dim>& from)
      : query_turn{args, from, std::make_index_sequence<chunks>{}} {}

  /// @param upper  whether there is anything in rows 8 to 15
  template <class Rows>
  __device__ void turn(Rows& rows, bool upper) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (h == 1 && !upper)
        break;
      float scale = 1;
      if (norms) {
        float squares = 0;
#pragma unroll
        for (int k = 0; k < Dim / 16; ++k)
          squares +=
              square(unpack_pair<T>(rows.q[k][h])) + square(unpack_pair<T>(rows.q[k][h + 2]));
        squares += __shfl_xor_sync(0xFFFFFFFFU, squares, 1);
        squares += __shfl_xor_sync(0xFFFFFFFFU, squares, 2);
        scale = norm_scale(squares, Dim, eps);
      }
#pragma unroll
      for (int k = 0; k < chunks; ++k)
#pragma unroll
        for (int part = 0; part < 2; ++part) {
          std::uint32_t& first = rows.q[k][h + 2 * part];
          std::uint32_t& second = rows.q[k + chunks][h + 2 * part];
          float2 low = unpack_pair<T>(first), high = unpack_pair<T>(second);
          by[k][part].turn(low, high, scale);
          first = pack_pair<T>(low.x, low.y);
          second = pack_pair<T>(high.x, high.y);
        }
    }
  }
};

/// k and v of a row: a lane has two elements of each half of k, the first Dim / 8 lanes a chunk of
/// v.
template <class T, int Dim>
struct own_row {
  static constexpr int k_lanes = Dim / 4;
  static constexpr int v_lanes = Dim / 8;

  std::uint32_t low;
  std::uint32_t high;
  uint4 value;

  /// Lanes without a part of k go along with the first.
  __device__ static int column() {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    return (lane < k_lanes ? lane : 0) * 2;
  }

  /// As the product gave them.
  __device__ void load(const row_places<T, Dim>& from) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    low = *reinterpret_cast<const std::uint32_t*>(from.key + column());
    high = *reinterpret_cast<const std::uint32_t*>(from.key + column() + Dim / 2);
    value = *reinterpret_cast<const uint4*>(from.value + (lane < v_lanes ? lane : 0) * 8);
  }

  /// Norms and turns k.
  __device__ void turn(const rope_store_args& by, const pair_factors& factors) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    float2 l = unpack_pair<T>(low), h = unpack_pair<T>(high);
    float scale = 1;
    if (by.k_norm != nullptr)
      scale = norm_scale(warp_sum(lane < k_lanes ? square(l) + square(h) : 0.0F), Dim, by.eps);
    factors.turn(l, h, scale);
    low = pack_pair<T>(l.x, l.y);
    high = pack_pair<T>(h.x, h.y);
  }

  __device__ void store(const kv_cache& cache, std::int64_t slot, int kv_head) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const std::int64_t at =
        ((slot / cache.block_size * cache.kv_heads + kv_head) * cache.block_size +
         slot % cache.block_size) *
        Dim;
    if (lane < k_lanes) {
      auto* const to = reinterpret_cast<std::uint32_t*>(static_cast<T*>(cache.k) + at);
      to[lane] = low;
      to[lane + k_lanes] = high;
    }
    if (lane < v_lanes)
      reinterpret_cast<uint4*>(static_cast<T*>(cache.v) + at)[lane] = value;
  }

  /// @param position  in the tile
  __device__ void put_key(std::uint32_t tile_begin, int position) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if (lane < k_lanes) {
      const auto put = [&](int chunk, std::uint32_t x) {
        asm volatile("st.shared.b32 [%0], %1;" ::"r"(
                         paged_chunks<Dim>::at(tile_begin, position, chunk) + lane % 4 * 4),
                     "r"(x)
                     : "memory");
      };
      put(lane / 4, low);
      put(lane / 4 + Dim / 16, high);
    }
    __syncwarp();
  }
  __device__ void put_value(std::uint32_t tile_begin, int position) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if (lane < v_lanes)
      store_vector(paged_chunks<Dim>::at(tile_begin, position, lane), value);
    __syncwarp();
  }
};

} // namespace troupe::kernels::cuda
