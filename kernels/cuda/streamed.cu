// The product for up to 64 rows as a stream: a block for each SM takes tiles of 16 or 32 rows of w
// one after the other, as stream_tiles.cuh has it. The ring takes nearly all of the shared memory:
// it is filled with w while the kernels in front still run, on each SM as soon as the product
// before has left it; or half of it where that is nearly all that a block has of w, so that the
// next product need not wait for this one to leave. With Gated half of a tile's rows are of gate
// and half of up. With Normed each block makes the rows of a itself, of the residual.
// Roofline: bound by reading w once; 2 n k bytes. The rows of a come from L2, n / 32 times.
#include "kernels/cuda/stream_tiles.cuh"

#include <algorithm>

namespace troupe::kernels::cuda {

namespace {

using namespace streams;

template <class Shape>
__global__ void __launch_bounds__(threads, Shape::groups < 8 ? 2 : 1)
    streamed_kernel(const __grid_constant__ stream_plan plan) {
  extern __shared__ unsigned char memory[];
  __shared__ __align__(8) std::uint64_t barriers[2 * Shape::stages];
  const std::uint32_t begin = shared_address(memory);
  const stage_ring<Shape> ring{(begin + 1023) / 1024 * 1024, shared_address(barriers),
                               shared_address(barriers + Shape::stages), plan.stages};
  if (threadIdx.x == consumers) {
    fetch_description(plan.w);
    if constexpr (!Shape::normed)
      fetch_description(plan.a);
    for (std::uint32_t i = 0; i < plan.stages; ++i) {
      init_barrier(ring.full + i * 8, 1);
      init_barrier(ring.empty + i * 8, warps);
    }
    show_barriers();
  }
  __syncthreads();
  if (threadIdx.x < consumers) {
    unsigned char* const parts = memory + (ring.memory - begin) + plan.stages * Shape::stage_bytes;
    rows_of_a<Shape> rows;
    if constexpr (Shape::normed) {
      unsigned char* const to = parts + Shape::parts_bytes;
      const row_norms<typename Shape::element> norms{plan.from, plan.m,
                                                     plan.steps * panels * panel_depth};
      wait_for_before();
      norms.make(to);
      rows = {shared_address(to + normed_sums_bytes), plan};
    } else {
      wait_for_before();
    }
    consume<Shape>(ring, rows, reinterpret_cast<float*>(parts), plan);
  } else if (threadIdx.x == consumers) {
    const auto first = static_cast<int>(blockIdx.x);
    const auto blocks = static_cast<int>(gridDim.x);
    producer<Shape>{plan, first}.run(ring, (plan.tiles - first + blocks - 1) / blocks * plan.steps);
  }
}

/// Stages of a ring, where the busiest block has so many `units` to bring, and needs `more` shared
/// memory. Where a ring can hold all of them it takes half of the shared memory at most: then the
/// next product's block finds room while this one's multiplies, and its w is on its way.
template <class Shape>
std::uint32_t stages_for(std::uint32_t units, std::uint32_t more) {
  const auto within = [&](std::uint32_t room) {
    return (room - Shape::fixed_bytes - more) / Shape::stage_bytes;
  };
  const std::uint32_t all = within(shared_room);
  if (units > all)
    return all;
  // An SM keeps 1 KB for each block.
  const std::uint32_t half = within(((shared_room + 1024) / 2) - 1024);
  return std::max(std::min(units, half), 2U);
}

/// @param from  of shapes that norm
template <class Shape>
result<void> launch(const ordered_matmul_args& args, cudaStream_t stream,
                    const normed_source& from = {}) {
  const auto type =
      args.type == dtype::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  const auto w = describe_panels(
      {args.w, Shape::gate ? 2 * args.n : args.n, args.k, args.k, Shape::outputs}, panels, type);
  const auto a = Shape::normed ? w
                               : describe_panels({args.a, args.m, args.k, args.lda, Shape::a_rows},
                                                 panels, type);
  if (!w || !a)
    return fail(w ? a.error() : w.error());
  const int tiles = ceil_div(args.n, Shape::outputs);
  const int steps = ceil_div(args.k, panels * panel_depth);
  const int blocks = std::min(tiles, count_multiprocessors());
  const std::uint32_t rows_bytes =
      Shape::normed ? normed_sums_bytes + static_cast<std::uint32_t>(args.m) *
                                              normed_stride(static_cast<int>(args.k))
                    : 0;
  const stream_plan plan{
      .w = *w,
      .a = *a,
      .from = from,
      .out = args.out,
      .ldo = args.ldo,
      .m = static_cast<int>(args.m),
      .n = static_cast<int>(args.n),
      .tiles = tiles,
      .steps = steps,
      .add = args.add,
      .stages = stages_for<Shape>(static_cast<std::uint32_t>(ceil_div(tiles, blocks) * steps),
                                  rows_bytes)};
  const std::uint32_t shared_bytes =
      plan.stages * Shape::stage_bytes + Shape::parts_bytes + rows_bytes + 1024;
  auto* const kernel = streamed_kernel<Shape>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       static_cast<int>(shared_room - 512));
  launch_early(kernel, {dim3(static_cast<unsigned>(blocks)), threads, shared_bytes, stream}, plan);
  return launched("streamed_matmul");
}

template <class Element, class Output, int Tiles, bool Gated>
result<void> launch_rows(const ordered_matmul_args& args, cudaStream_t stream) {
  static_assert(max_streamed_rows == 64);
  if (args.m <= 8)
    return launch<stream_shape<Element, Output, Tiles, 1, Gated>>(args, stream);
  if (args.m <= 16)
    return launch<stream_shape<Element, Output, Tiles, 2, Gated>>(args, stream);
  if (args.m <= 32)
    return launch<stream_shape<Element, Output, Tiles, 4, Gated>>(args, stream);
  if (args.m <= 48)
    return launch<stream_shape<Element, Output, Tiles, 6, Gated>>(args, stream);
  return launch<stream_shape<Element, Output, Tiles, 8, Gated>>(args, stream);
}

/// Whether the busiest SM has a tenth less to make in tiles of half of `outputs` each.
bool takes_half_tiles(const ordered_matmul_args& args, int outputs) {
  const int multiprocessors = count_multiprocessors();
  const auto busiest = [&](int each) {
    return ceil_div(ceil_div(args.n, each), multiprocessors) * each;
  };
  return busiest(outputs / 2) * 10 <= busiest(outputs) * 9;
}

template <class Element, class Output>
result<void> launch_even(const ordered_matmul_args& args, cudaStream_t stream) {
  return takes_half_tiles(args, 32) ? launch_rows<Element, Output, 1, false>(args, stream)
                                    : launch_rows<Element, Output, 2, false>(args, stream);
}

template <bool Gated>
result<void> launch_normed(const ordered_matmul_args& args, const normed_source& from,
                           cudaStream_t stream) {
  if (!takes_normed(args, from))
    return fail(errc::unsupported, "streamed_normed_matmul: takes 1 to 8 rows of 16 bits and 4,096 "
                                   "elements, k a multiple of 512");
  return with_16_bits(args.type, [&](auto element) {
    using T = decltype(element);
    return takes_half_tiles(args, Gated ? 16 : 32)
               ? launch<stream_shape<T, T, 1, 1, Gated, true>>(args, stream, from)
               : launch<stream_shape<T, T, 2, 1, Gated, true>>(args, stream, from);
  });
}

} // namespace

bool takes_streamed(const ordered_matmul_args& args) noexcept {
  constexpr std::int64_t most = std::int64_t{1} << 30U;
  return of_16_bits(args) && (!args.add || args.out_type == dtype::f32) && args.m >= 1 &&
         args.m <= max_streamed_rows && args.n >= 1 && args.n <= most && args.k >= panel_depth &&
         args.k <= most && args.k % panel_depth == 0 && args.lda >= args.k && args.ldo >= args.n &&
         aligned(args.a, args.lda * 2, 16) && aligned(args.w, args.k * 2, 16);
}

result<void> streamed_matmul(const ordered_matmul_args& args, stream_ref stream) {
  if (!takes_streamed(args))
    return fail(errc::unsupported,
                "streamed_matmul: takes 1 to 64 rows of 16 bits, k a multiple of 64");
  return with_16_bits(args.type, [&](auto element) {
    using T = decltype(element);
    return args.out_type == dtype::f32 ? launch_even<T, float>(args, stream)
                                       : launch_even<T, T>(args, stream);
  });
}

result<void> streamed_gated_matmul(const ordered_matmul_args& args, stream_ref stream) {
  if (!takes_streamed(args) || args.out_type != args.type)
    return fail(errc::unsupported,
                "streamed_gated_matmul: takes 1 to 64 rows of 16 bits, k a multiple of 64");
  return with_16_bits(args.type, [&](auto element) {
    using T = decltype(element);
    return args.m <= 8 && takes_half_tiles(args, 16)
               ? launch<stream_shape<T, T, 1, 1, true>>(args, stream)
               : launch_rows<T, T, 2, true>(args, stream);
  });
}

bool takes_normed(const ordered_matmul_args& args, const normed_source& from) noexcept {
  ordered_matmul_args with = args;
  with.a = args.w;
  with.lda = args.k;
  return takes_streamed(with) && args.out_type == args.type && args.m <= max_normed_rows &&
         args.m * args.k <= most_normed_elements && args.k % normed_at_once == 0 &&
         from.stride >= args.k && aligned(from.residual, from.stride * 4, 16) &&
         aligned(from.weight, 0, 16);
}

result<void> streamed_normed_matmul(const ordered_matmul_args& args, const normed_source& from,
                                    stream_ref stream) {
  return launch_normed<false>(args, from, stream);
}

result<void> streamed_normed_gated_matmul(const ordered_matmul_args& args,
                                          const normed_source& from, stream_ref stream) {
  return launch_normed<true>(args, from, stream);
}

} // namespace troupe::kernels::cuda
