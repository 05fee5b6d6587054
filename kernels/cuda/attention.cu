// Attention for every type and head dimension, a block per row and query head: for correctness and
// for shapes that the tensor-core kernel does not take. The walk over tiles of 64 positions from 0
// is the same for every row, so its bits depend on nothing else.
// Roofline: none is aimed at; each row reads its K and V again.
#include "kernels/cuda/attention_rows.cuh"

#include <cmath>

namespace troupe::kernels::cuda {

namespace {

constexpr int threads = 128;
constexpr int tile = 64;
/// Dimensions that one thread accumulates.
constexpr int most_dims = max_head_dim / threads;

/// What one block knows of its row.
struct row_view {
  std::int64_t row;
  int head;
  int kv_head;
  int position;
  const std::int32_t* table;

  __device__ row_view(const attention_args& args)
      : row{blockIdx.x}, head{static_cast<int>(blockIdx.y)},
        kv_head{head / (args.heads / args.cache.kv_heads)}, position{args.batch[row].position},
        table{args.block_tables + args.sequences[args.batch[row].sequence].table_begin} {}

  /// Element index of a position's K or V.
  __device__ std::int64_t place(const kv_cache& cache, int at) const {
    const std::int64_t block = table[at / cache.block_size];
    return ((block * cache.kv_heads + kv_head) * cache.block_size + at % cache.block_size) *
           cache.dim;
  }
};

/// scores[i] = q k_i scale for the positions of one tile, a warp per position.
template <class T>
__device__ void score(const attention_args& args, const row_view& view, const float* q, int start,
                      float* scores) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int i = warp; i < tile; i += threads / 32) {
    float sum = 0;
    if (start + i <= view.position) {
      const T* const k = static_cast<const T*>(args.cache.k) + view.place(args.cache, start + i);
      for (int d = lane; d < args.cache.dim; d += 32)
        sum = fmaf(q[d], to_float(k[d]), sum);
    }
    sum = warp_sum(sum);
    if (lane == 0)
      scores[i] = start + i <= view.position ? sum * args.scale : -INFINITY;
  }
}

template <class T>
__global__ void __launch_bounds__(threads) attention_rows_kernel(attention_args args) {
  __shared__ float q[max_head_dim];
  __shared__ float scores[tile];
  const row_view view{args};
  const kv_cache& cache = args.cache;
  const T* const from = static_cast<const T*>(args.q) + view.row * args.q_stride;
  for (int d = static_cast<int>(threadIdx.x); d < cache.dim; d += threads)
    q[d] = to_float(from[view.head * cache.dim + d]);
  __syncthreads();
  float acc[most_dims] = {};
  float most = -INFINITY;
  float total = 0;
  for (int start = 0; start <= view.position; start += tile) {
    score<T>(args, view, q, start, scores);
    __syncthreads();
    float greatest = most;
    for (int i = 0; i < tile; ++i)
      greatest = fmaxf(greatest, scores[i]);
    const float rescale = expf(most - greatest);
    most = greatest;
    total *= rescale;
    for (float& x : acc)
      x *= rescale;
    const int count = min(tile, view.position + 1 - start);
    for (int i = 0; i < count; ++i) {
      const float p = expf(scores[i] - most);
      total += p;
      const T* const v = static_cast<const T*>(cache.v) + view.place(cache, start + i);
#pragma unroll
      for (int j = 0; j < most_dims; ++j)
        if (const int d = static_cast<int>(threadIdx.x) + j * threads; d < cache.dim)
          acc[j] = fmaf(p, to_float(v[d]), acc[j]);
    }
    __syncthreads();
  }
  T* const out = static_cast<T*>(args.out) + view.row * args.out_stride + view.head * cache.dim;
#pragma unroll
  for (int j = 0; j < most_dims; ++j)
    if (const int d = static_cast<int>(threadIdx.x) + j * threads; d < cache.dim)
      out[d] = from_float<T>(acc[j] / total);
}

result<void> check(const attention_args& args) {
  const kv_cache& cache = args.cache;
  if (cache.dim <= 0 || cache.dim > max_head_dim)
    return fail(errc::unsupported, "attention: a head dimension of " + std::to_string(cache.dim) +
                                       " is not from 1 to 512");
  if (cache.block_size <= 0 || cache.block_size % 16 != 0)
    return fail(errc::unsupported, "attention: a block size of " +
                                       std::to_string(cache.block_size) +
                                       " is not a multiple of 16");
  const std::int64_t width = std::int64_t{args.heads} * cache.dim;
  if (args.heads <= 0 || cache.kv_heads <= 0 || args.heads % cache.kv_heads != 0 ||
      args.q_stride < width || args.out_stride < width)
    return fail(errc::bad_shape, "attention: " + std::to_string(args.heads) + " heads over " +
                                     std::to_string(cache.kv_heads) +
                                     " KV heads, or strides "
                                     "below the heads");
  if (args.raw.q != nullptr && args.prefill_items > 0 && !attends_by_warpgroups(args))
    return fail(errc::unsupported, "attention: turns q of heads of 128 of 16 bits in tiles of 128 "
                                   "rows alone");
  return {};
}

} // namespace

result<void> attention_by_rows(const attention_args& args, stream_ref stream) {
  const dim3 grid(static_cast<unsigned>(args.rows), static_cast<unsigned>(args.heads));
  with_type(args.cache.type, [&](auto element) {
    attention_rows_kernel<decltype(element)><<<grid, threads, 0, stream>>>(args);
  });
  return launched("attention");
}

bool attends_by_warpgroups(const attention_args& args) noexcept {
  return shortcuts_taken().warpgroups && size_of(args.cache.type) == 2 && args.cache.dim == 128 &&
         args.prefill_rows == wide_tile_rows;
}

result<void> attention(const attention_args& args, stream_ref stream) {
  if (auto good = check(args); !good)
    return good;
  if (args.rows == 0)
    return {};
  return attends_by_items(args.cache) ? attention_by_items(args, stream)
                                      : attention_by_rows(args, stream);
}

} // namespace troupe::kernels::cuda
