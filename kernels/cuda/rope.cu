// Norms over the heads of q and k, rope, and the write of k and v to the paged cache, in one pass
// over qkv: one warp per row and head, or for heads of 64 or 128 of 16 bits a lane for 16 of these.
// Roofline: bound by memory. 32 + 2 x 8 heads of 128 in bf16 move 24 KiB a row.
#include "kernels/cuda/device.cuh"

#include <algorithm>

namespace troupe::kernels::cuda {

namespace {

constexpr int warps_per_block = 4;
/// Pairs of a head that one lane holds.
constexpr int most_pairs = max_head_dim / 2 / 32;

/// The halves of one head, lane by lane.
struct head_pairs {
  float low[most_pairs];
  float high[most_pairs];
};

template <class T>
__device__ void load(head_pairs& x, const T* head, int half, int lane) {
#pragma unroll
  for (int i = 0; i < most_pairs; ++i) {
    const int at = lane + 32 * i;
    x.low[i] = at < half ? to_float(head[at]) : 0.0F;
    x.high[i] = at < half ? to_float(head[at + half]) : 0.0F;
  }
}

template <class T>
__device__ void store(const head_pairs& x, T* head, int half, int lane) {
#pragma unroll
  for (int i = 0; i < most_pairs; ++i) {
    const int at = lane + 32 * i;
    if (at < half) {
      head[at] = from_float<T>(x.low[i]);
      head[at + half] = from_float<T>(x.high[i]);
    }
  }
}

__device__ void norm(head_pairs& x, const float* weight, float eps, int half) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float squares = 0;
#pragma unroll
  for (int i = 0; i < most_pairs; ++i)
    squares = fmaf(x.low[i], x.low[i], fmaf(x.high[i], x.high[i], squares));
  const float scale = 1.0F / sqrtf(warp_sum(squares) / static_cast<float>(2 * half) + eps);
#pragma unroll
  for (int i = 0; i < most_pairs; ++i) {
    const int at = lane + 32 * i;
    if (at < half) {
      x.low[i] *= scale * weight[at];
      x.high[i] *= scale * weight[at + half];
    }
  }
}

__device__ void turn(head_pairs& x, const float* cos, const float* sin, int half) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < most_pairs; ++i) {
    const int at = lane + 32 * i;
    if (at >= half)
      continue;
    const float low = x.low[i];
    const float high = x.high[i];
    x.low[i] = low * cos[at] - high * sin[at];
    x.high[i] = high * cos[at] + low * sin[at];
  }
}

template <class T>
__global__ void rope_store_kernel(rope_store_args args) {
  const int head = static_cast<int>(blockIdx.y * warps_per_block + threadIdx.x / 32);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const kv_cache& cache = args.cache;
  const std::int64_t row = blockIdx.x;
  let_next_begin();
  const batch_row at_row = args.batch[row];
  wait_for_before();
  if (head >= args.heads + 2 * cache.kv_heads)
    return;
  const int half = cache.dim / 2;
  const bool query = head < args.heads;
  if (query && (row < args.query_begin || row >= args.query_end))
    return;
  const bool value = head >= args.heads + cache.kv_heads;
  head_pairs x;
  load(x, static_cast<const T*>(args.qkv) + row * args.qkv_stride + head * cache.dim, half, lane);
  if (!value) {
    const float* const weight = query ? args.q_norm : args.k_norm;
    if (weight != nullptr)
      norm(x, weight, args.eps, half);
    const std::int64_t position = at_row.position;
    turn(x, args.cos + position * half, args.sin + position * half, half);
  }
  if (query) {
    store(x, static_cast<T*>(args.q) + row * args.q_stride + head * cache.dim, half, lane);
    return;
  }
  const std::int64_t slot = at_row.slot;
  if (slot < 0)
    return;
  const std::int64_t kv_head = head - args.heads - (value ? cache.kv_heads : 0);
  const std::int64_t at = ((slot / cache.block_size * cache.kv_heads + kv_head) * cache.block_size +
                           slot % cache.block_size) *
                          cache.dim;
  store(x, static_cast<T*>(value ? cache.v : cache.k) + at, half, lane);
}

/// Of a head of Dim elements of 16 bits a lane has eight of the first half and their partners.
template <class T, int Dim>
struct wide_pairs {
  static constexpr int lanes = Dim / 16;
  using octet = pack<T, 8>;

  float low[8];
  float high[8];

  __device__ void load(const T* head, int lane) {
    const auto first = *reinterpret_cast<const octet*>(head + lane * 8);
    const auto second = *reinterpret_cast<const octet*>(head + Dim / 2 + lane * 8);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      low[i] = to_float(first.item[i]);
      high[i] = to_float(second.item[i]);
    }
  }

  __device__ void store(T* head, int lane) const {
    octet first, second;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      first.item[i] = from_float<T>(low[i]);
      second.item[i] = from_float<T>(high[i]);
    }
    *reinterpret_cast<octet*>(head + lane * 8) = first;
    *reinterpret_cast<octet*>(head + Dim / 2 + lane * 8) = second;
  }

  /// All lanes of a warp call it: `weight` is null where a head has no norm.
  __device__ void norm(const float* weight, float eps, int lane) {
    float squares = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i)
      squares = fmaf(low[i], low[i], fmaf(high[i], high[i], squares));
    for (int step = lanes / 2; step > 0; step /= 2)
      squares += __shfl_xor_sync(0xFFFFFFFFU, squares, step);
    if (weight == nullptr)
      return;
    const float scale = 1.0F / sqrtf(squares / static_cast<float>(Dim) + eps);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      low[i] *= scale * weight[lane * 8 + i];
      high[i] *= scale * weight[Dim / 2 + lane * 8 + i];
    }
  }

  __device__ void turn(const float* cos, const float* sin, int lane) {
    const auto c = *reinterpret_cast<const pack<float, 8>*>(cos + lane * 8);
    const auto s = *reinterpret_cast<const pack<float, 8>*>(sin + lane * 8);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float l = low[i];
      const float h = high[i];
      low[i] = l * c.item[i] - h * s.item[i];
      high[i] = h * c.item[i] + l * s.item[i];
    }
  }
};

/// Heads of all rows that are to be made: k and v of all, then q of those of which it is wanted.
__host__ __device__ std::int64_t heads_of(const rope_store_args& args) {
  return args.rows * 2 * args.cache.kv_heads + (args.query_end - args.query_begin) * args.heads;
}

/// Where one of them is.
struct head_place {
  std::int64_t row;
  int head;

  __device__ static head_place of(const rope_store_args& args, std::int64_t number) {
    const int stored = 2 * args.cache.kv_heads;
    if (number < args.rows * stored)
      return {number / stored, args.heads + static_cast<int>(number % stored)};
    number -= args.rows * stored;
    return {args.query_begin + number / args.heads, static_cast<int>(number % args.heads)};
  }
};

template <class T, int Dim>
__global__ void __launch_bounds__(32 * warps_per_block)
    rope_store_wide_kernel(const __grid_constant__ rope_store_args args) {
  using pairs = wide_pairs<T, Dim>;
  const kv_cache& cache = args.cache;
  const std::int64_t own = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / pairs::lanes;
  const int lane = static_cast<int>(threadIdx.x) % pairs::lanes;
  let_next_begin();
  // Lanes beyond the last head go along with it and write nothing.
  const std::int64_t heads = heads_of(args);
  const bool live = own < heads;
  const head_place at = head_place::of(args, live ? own : heads - 1);
  const std::int64_t row = at.row;
  const int head = at.head;
  const batch_row at_row = args.batch[row];
  const bool query = head < args.heads;
  const bool value = head >= args.heads + cache.kv_heads;
  wait_for_before();
  pairs x;
  x.load(static_cast<const T*>(args.qkv) + row * args.qkv_stride + head * Dim, lane);
  if (args.q_norm != nullptr || args.k_norm != nullptr)
    x.norm(value ? nullptr : query ? args.q_norm : args.k_norm, args.eps, lane);
  if (!value) {
    const std::int64_t angle = std::int64_t{at_row.position} * (Dim / 2);
    x.turn(args.cos + angle, args.sin + angle, lane);
  }
  if (!live)
    return;
  if (query) {
    x.store(static_cast<T*>(args.q) + row * args.q_stride + head * Dim, lane);
    return;
  }
  const std::int64_t slot = at_row.slot;
  if (slot < 0)
    return;
  const std::int64_t kv_head = head - args.heads - (value ? cache.kv_heads : 0);
  const std::int64_t place =
      ((slot / cache.block_size * cache.kv_heads + kv_head) * cache.block_size +
       slot % cache.block_size) *
      Dim;
  x.store(static_cast<T*>(value ? cache.v : cache.k) + place, lane);
}

/// Whether all that a lane moves lies on multiples of what it moves at once.
bool takes_wide(const rope_store_args& args) {
  const kv_cache& cache = args.cache;
  return size_of(cache.type) == 2 && (cache.dim == 64 || cache.dim == 128) &&
         aligned(args.qkv, args.qkv_stride * 2, 16) && aligned(args.q, args.q_stride * 2, 16) &&
         aligned(cache.k, 0, 16) && aligned(cache.v, 0, 16) && aligned(args.cos, 0, 32) &&
         aligned(args.sin, 0, 32);
}

template <class T, int Dim>
void launch_wide(const rope_store_args& args, cudaStream_t stream) {
  const std::int64_t lanes = heads_of(args) * wide_pairs<T, Dim>::lanes;
  constexpr unsigned threads = 32 * warps_per_block;
  const auto blocks = static_cast<unsigned>((lanes + threads - 1) / threads);
  launch_early(rope_store_wide_kernel<T, Dim>, {dim3(blocks), threads, 0, stream}, args);
}

result<void> check(const rope_store_args& args) {
  const kv_cache& cache = args.cache;
  if (cache.dim <= 0 || cache.dim % 2 != 0 || cache.dim > max_head_dim)
    return fail(errc::unsupported, "rope_store: a head dimension of " + std::to_string(cache.dim) +
                                       " is not an even number up to 512");
  const std::int64_t width = std::int64_t{args.heads} * cache.dim;
  const std::int64_t kv = std::int64_t{cache.kv_heads} * cache.dim;
  const bool none = args.heads < 0 || cache.kv_heads < 0 || args.heads + cache.kv_heads == 0;
  if (none || (cache.kv_heads > 0 && args.heads % cache.kv_heads != 0) || cache.block_size <= 0 ||
      args.q_stride < width || args.qkv_stride < width + 2 * kv)
    return fail(errc::bad_shape, "rope_store: q, k and v of " + std::to_string(args.heads) +
                                     " + 2 x " + std::to_string(cache.kv_heads) + " heads");
  return {};
}

} // namespace

result<void> rope_store(rope_store_args args, stream_ref stream) {
  if (auto good = check(args); !good)
    return good;
  args.query_end = std::clamp<std::int64_t>(args.query_end, 0, args.rows);
  args.query_begin = std::clamp<std::int64_t>(args.query_begin, 0, args.query_end);
  if (heads_of(args) == 0)
    return {};
  if (takes_wide(args)) {
    with_16_bits(args.cache.type, [&](auto element) {
      if (args.cache.dim == 64)
        launch_wide<decltype(element), 64>(args, stream);
      else
        launch_wide<decltype(element), 128>(args, stream);
    });
    return launched("rope_store");
  }
  const int heads = args.heads + 2 * args.cache.kv_heads;
  const dim3 grid(static_cast<unsigned>(args.rows),
                  static_cast<unsigned>((heads + warps_per_block - 1) / warps_per_block));
  with_type(args.cache.type, [&](auto element) {
    launch_early(rope_store_kernel<decltype(element)>, {grid, 32 * warps_per_block, 0, stream},
                 args);
  });
  return launched("rope_store");
}

} // namespace troupe::kernels::cuda
