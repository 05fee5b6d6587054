// Attention of few rows a sequence, by items of 16 rows. A block has four pairs of warps, an SM one
// block. In each pair a warp brings K and V, page by page through the memory unit, into a ring of
// tiles in shared memory that runs on over the borders of splits and items; the other multiplies.
// Pairs take the items one by one, each the next that nobody has. The arithmetic of a row is that
// of attention_warps.cuh, whichever way the host cuts its items.
// Roofline: K and V are read once, at 0.97 of the bandwidth where items walk all their splits and
// there are some for each SM. A split that is left for join_kernel() costs a partial result.
#include "kernels/cuda/attention_pairs.cuh"
#include "kernels/cuda/attention_rows.cuh"

#include <algorithm>

namespace troupe::kernels::cuda {

namespace {

template <class T, int Dim>
__global__ void __launch_bounds__(64 * pairs)
    decode_kernel(const __grid_constant__ attention_args args,
                  const __grid_constant__ CUtensorMap k, const __grid_constant__ CUtensorMap v) {
  extern __shared__ __align__(128) unsigned char memory[];
  let_next_begin();
  const int all = *args.decode_count * args.cache.kv_heads;
  // One block that waits is enough to keep the order; the others would only be in the way.
  if (static_cast<int>(blockIdx.x) >= all) {
    if (blockIdx.x == 0)
      wait_for_before();
    return;
  }
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int pair = warp % pairs;
  const ring<Dim> mine{(shared_address(memory) + 1023) / 1024 * 1024, pair};
  open_ring(mine, warp, k, v);
  if (warp < pairs) {
    multiplier<T, Dim>{args, mine, lane}.run();
  } else {
    // Few items go to as many SMs.
    const int blocks = static_cast<int>(gridDim.x);
    bringer<Dim>{args, k, v, mine, lane}.run(pair * blocks + static_cast<int>(blockIdx.x),
                                             pairs * blocks, all);
  }
}

/// Joins the splits of one tile and KV head; a thread has four columns of a row.
template <class T, int Dim>
__global__ void __launch_bounds__(128) join_kernel(const __grid_constant__ attention_args args) {
  let_next_begin();
  wait_for_before();
  if (static_cast<int>(blockIdx.x) >= *args.join_count)
    return;
  const attention_item item = args.join[blockIdx.x];
  const item_view<Dim> view{args, item, static_cast<int>(blockIdx.y)};
  const std::int64_t step = args.cache.kv_heads * partial_size<Dim>;
  const float* const parts = args.partials + item.partial * step + view.kv_head * partial_size<Dim>;
  const int live = min(decode_tile_rows, view.rows - view.tile_begin);
  for (int i = static_cast<int>(threadIdx.x) * 4; i < live * Dim; i += 128 * 4) {
    join_parts_of<Dim>(parts, step, item.split, i)
        .store(static_cast<T*>(args.out) + view.place(i / Dim, args.out_stride) + i % Dim);
  }
}

template <class T, int Dim>
result<void> launch(const attention_args& args, cudaStream_t stream) {
  if (args.decode_items_max > 0) {
    const auto maps = describe_cache(args.cache);
    if (!maps)
      return fail(maps.error());
    constexpr std::uint32_t bytes = ring_shape<Dim>::block;
    cudaFuncSetAttribute(decode_kernel<T, Dim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(bytes));
    const std::int64_t blocks = std::min<std::int64_t>(args.decode_items_max * args.cache.kv_heads,
                                                       count_multiprocessors());
    launch_early(decode_kernel<T, Dim>,
                 {dim3(static_cast<unsigned>(blocks)), 64 * pairs, bytes, stream}, args, maps->k,
                 maps->v);
  }
  return launched("attention");
}

template <class T, int Dim>
void launch_joins(const attention_args& args, cudaStream_t stream) {
  launch_early(
      join_kernel<T, Dim>,
      {dim3(static_cast<unsigned>(args.join_items_max), static_cast<unsigned>(args.cache.kv_heads)),
       128, 0, stream},
      args);
}

} // namespace

result<void> attention_joins(const attention_args& args, stream_ref stream) {
  if (args.join_items_max == 0)
    return {};
  with_16_bits(args.cache.type, [&](auto element) {
    using T = decltype(element);
    if (args.cache.dim == 64)
      launch_joins<T, 64>(args, stream);
    else
      launch_joins<T, 128>(args, stream);
  });
  return launched("attention");
}

result<void> attention_decode(const attention_args& args, stream_ref stream) {
  const auto items = with_16_bits(args.cache.type, [&](auto element) {
    using T = decltype(element);
    return args.cache.dim == 64 ? launch<T, 64>(args, stream) : launch<T, 128>(args, stream);
  });
  return items ? attention_joins(args, stream) : items;
}

} // namespace troupe::kernels::cuda
