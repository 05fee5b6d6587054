// The product for many rows: a block for each SM takes tiles of 128 rows of a, or 64 where there
// are no more, and up to 256 of w one after the other. A thread has the memory unit keep a ring of
// stages full, and one or two warpgroups multiply 64 rows each out of it. Two blocks of a cluster
// take tiles one below the other and bring half of their w each, to both. With ending::gate a tile
// is as many rows of gate as of up, and it becomes silu(gate) * up. Outputs in 16 bits, or those of
// ending::floats, are kept in registers and stored or added, part by part, while the next tile's
// products are under way; the latter tell on their way which of a row lead. Other warps end norms
// that the product in front has begun. Roofline: the tensor cores, 128 cycles for each 64 x 256 x
// 16. A stage's 48 KiB come from L2, or 32 KiB where w is shared, in 1,024 cycles.
#include "kernels/cuda/wide_tiles.cuh"

#include <algorithm>
#include <array>

namespace troupe::kernels::cuda {

namespace {

using namespace wide;

template <class Shape>
result<void> launch(const ordered_matmul_args& args, int multiprocessors, cudaStream_t stream) {
  constexpr bool gate = Shape::end == ending::gate;
  const auto type =
      args.type == dtype::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  const auto a = describe_boxes({args.a, args.m, args.k, args.lda, Shape::rows}, type);
  const auto w =
      describe_boxes({args.w, gate ? 2 * args.n : args.n, args.k, args.k, Shape::box_rows}, type);
  if (!a || !w)
    return fail(a ? w.error() : a.error());
  const wide_plan plan{.a = *a,
                       .w = *w,
                       .out = args.out,
                       .ldo = args.ldo,
                       .m = static_cast<int>(args.m),
                       .n = static_cast<int>(args.n),
                       .second_box = gate ? static_cast<int>(args.n) : Shape::box_rows,
                       .steps = ceil_div(args.k, depth),
                       .row_tiles = ceil_div(args.m, Shape::rows * Shape::cluster),
                       .column_tiles = ceil_div(args.n, Shape::outputs),
                       .band = band_rows / Shape::cluster,
                       .ends = args.ends,
                       .k = static_cast<int>(args.k),
                       .leaders = args.leaders,
                       .leader_count = static_cast<int>(count_leaders(args.n))};
  const int clusters =
      std::min(plan.row_tiles * plan.column_tiles, multiprocessors / Shape::cluster);
  auto* const kernel = wide_kernel<Shape>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::shared_bytes);
  launch_early(kernel,
               {dim3(static_cast<unsigned>(clusters * Shape::cluster)), Shape::threads,
                Shape::shared_bytes, stream},
               plan);
  return {};
}

/// A way to cut a product into tiles.
struct wide_form {
  int columns;
  int cluster;
  /// Of a in a tile.
  int rows;
  result<void> (*launch)(const ordered_matmul_args&, int, cudaStream_t);
  /// The same by ending::sum, for blocks that take many tiles.
  result<void> (*launch_sum)(const ordered_matmul_args&, int, cudaStream_t) = nullptr;
};

template <ending Ending, int Columns, int Cluster, int Groups>
result<void> launch_type(const ordered_matmul_args& args, int multiprocessors, cudaStream_t on) {
  return with_16_bits(args.type, [&](auto element) {
    return launch<wide_shape<decltype(element), Ending, Columns, Cluster, Groups>>(
        args, multiprocessors, on);
  });
}
template <ending Ending, int Columns, int Cluster, int Groups = 2>
constexpr wide_form form_of{Columns, Cluster, Groups* group_rows,
                            launch_type<Ending, Columns, Cluster, Groups>};

/// In bf16, whose range is that of f32.
template <int Columns, int Cluster>
constexpr wide_form adding_form_of{
    Columns, Cluster, 2 * group_rows, launch_type<ending::add, Columns, Cluster, 2>,
    launch<wide_shape<__nv_bfloat16, ending::sum, Columns, Cluster>>};

/// Those that were the fastest for some shape, or are for numbers of rows between.
template <ending>
constexpr std::array forms{adding_form_of<256, 2>, form_of<ending::add, 256, 1>,
                           form_of<ending::add, 192, 1>, adding_form_of<128, 2>,
                           form_of<ending::add, 96, 2>};
template <>
constexpr std::array forms<ending::store>{
    form_of<ending::store, 256, 2>, form_of<ending::store, 256, 1>, form_of<ending::store, 192, 1>,
    form_of<ending::store, 128, 2>, form_of<ending::store, 96, 2>,  form_of<ending::store, 64, 2>};
template <>
constexpr std::array forms<ending::gate>{
    form_of<ending::gate, 256, 2>,    form_of<ending::gate, 224, 2>,
    form_of<ending::gate, 256, 1>,    form_of<ending::gate, 224, 1>,
    form_of<ending::gate, 128, 1>,    form_of<ending::gate, 96, 2>,
    form_of<ending::gate, 224, 1, 1>, form_of<ending::gate, 128, 1, 1>,
    form_of<ending::gate, 96, 1, 1>,  form_of<ending::gate, 64, 1, 1>};
/// Where w comes no sooner, the first of them are the quicker.
template <>
constexpr std::array forms<ending::floats>{
    form_of<ending::floats, 128, 1, 1>, form_of<ending::floats, 128, 1>,
    form_of<ending::floats, 192, 1, 1>, form_of<ending::floats, 192, 1>,
    form_of<ending::floats, 192, 2>};

/// How many tiles the clusters of a form take one after the other.
int turns_of(const wide_form& form, const ordered_matmul_args& args, std::int64_t w_rows,
             int multiprocessors) {
  const int tiles = ceil_div(args.m, form.rows * form.cluster) * ceil_div(w_rows, form.columns);
  return ceil_div(tiles, multiprocessors / form.cluster);
}

/// About how many cycles a product takes. On an H100 this finds the fastest form, or one that takes
/// at most 3 % more, for the products of a layer of Llama 3 8B from 256 to 8,192 rows.
double cycles_of(const wide_form& form, const ordered_matmul_args& args, std::int64_t w_rows,
                 int multiprocessors) {
  const int turns = turns_of(form, args, w_rows, multiprocessors);
  // A stage is multiplied, or comes at about 55 bytes a cycle.
  const double bytes = (form.rows + form.columns / form.cluster) * static_cast<double>(row_bytes);
  const double stage = std::max(form.columns * form.rows / 32.0, bytes / 55);
  // Where w is not shared, blocks drift apart and L2 has less of what they want.
  const double apart = form.cluster == 1 ? 1 + 0.01 * turns : 1;
  return turns * (ceil_div(args.k, depth) * stage + 3000) * apart;
}

/// By the form that takes the least time.
template <ending Ending>
result<void> launch_best(const ordered_matmul_args& args, cudaStream_t stream) {
  const std::int64_t w_rows = Ending == ending::gate ? 2 * args.n : args.n;
  const int multiprocessors = count_multiprocessors();
  // Of many columns w takes as long from memory by all forms, some 2,000 bytes a cycle.
  const double least = Ending == ending::floats ? static_cast<double>(w_rows * args.k) / 1000 : 0;
  const auto cycles = [&](const wide_form& form) {
    return std::max(least, cycles_of(form, args, w_rows, multiprocessors));
  };
  const auto& best = *std::min_element(
      forms<Ending>.begin(), forms<Ending>.end(),
      [&](const wide_form& x, const wide_form& y) { return cycles(x) < cycles(y); });
  const bool sums = best.launch_sum != nullptr && args.add && args.type == dtype::bf16 &&
                    turns_of(best, args, w_rows, multiprocessors) >= shortcuts_taken().kept_sums;
  if (auto done = (sums ? best.launch_sum : best.launch)(args, multiprocessors, stream); !done)
    return done;
  return launched("wide_matmul");
}

} // namespace

bool takes_wide(const ordered_matmul_args& args) noexcept {
  constexpr std::int64_t most = std::int64_t{1} << 30U;
  const bool ends = args.ends.squares == nullptr ||
                    (args.out_type == args.type && args.m <= max_split_rows &&
                     args.k % (4 * norm_part) == 0 && aligned(args.ends.squares, 16, 16));
  const bool leads = args.leaders == nullptr || (args.out_type == dtype::f32 && !args.add);
  return size_of(args.type) == 2 && args.begins.weight == nullptr && ends && leads &&
         (args.out_type == dtype::f32 || (args.out_type == args.type && !args.add)) &&
         args.m >= 1 && args.m <= most && args.n >= 8 && args.n <= most && args.k >= 8 &&
         args.k <= most && args.n % 8 == 0 && args.k % 8 == 0 && args.lda >= args.k &&
         args.ldo >= args.n && aligned(args.a, args.lda * 2, 16) &&
         aligned(args.w, args.k * 2, 16) && aligned(args.out, args.ldo * 2, 16);
}

result<void> wide_matmul(const ordered_matmul_args& args, stream_ref stream) {
  if (!takes_wide(args))
    return fail(errc::unsupported, "wide_matmul: takes 16 bits in multiples of 8 and of 16 bytes");
  if (args.out_type != dtype::f32)
    return launch_best<ending::store>(args, stream);
  return args.add ? launch_best<ending::add>(args, stream)
                  : launch_best<ending::floats>(args, stream);
}

result<void> wide_gated_matmul(const ordered_matmul_args& args, stream_ref stream) {
  if (!takes_wide(args) || args.add)
    return fail(errc::unsupported,
                "wide_gated_matmul: takes 16 bits in multiples of 8 and of 16 bytes");
  return launch_best<ending::gate>(args, stream);
}

} // namespace troupe::kernels::cuda
