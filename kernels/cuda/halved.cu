// The product for some hundred rows, whose tiles are too few for all SMs: the two blocks of a
// cluster multiply the same tile, each for half of k, and then add up half of its rows each, out
// of each other's shared memory; or four of them, each for a quarter, where tiles are so few
// that all such clusters find a place. A tile is 64 or 128 rows of w, which wgmma has as its
// rows, by up to 256 rows of a, its columns: so w is read once and instructions are long. A
// thread has the memory unit keep a ring of stages full, of w before the kernel in front is
// done, and one or two warpgroups multiply 64 rows of w each. Outputs go through shared memory,
// where rows of a tile become those of out; where these are added to the residual, its next norm
// may be begun there, for which the residual is read before the kernel in front is done. Other
// warps end the norm of a. Larger clusters would need less, but not all SMs have a place in one
// of four. Roofline: w from memory once, or shared memory, which gives 128 bytes a cycle to
// wgmma (2 KiB of w and 32 bytes of each row of a for 64 x N x 16, in N / 2 cycles) and to the
// copies.
#include "kernels/cuda/barriers.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/split_norms.cuh"
#include "kernels/cuda/stage_ring.cuh"
#include "kernels/cuda/tensor_copies.cuh"
#include "kernels/cuda/wgmma_wide.cuh"

#include <algorithm>
#include <array>

namespace troupe::kernels::cuda {

namespace {

constexpr int group_rows = 64;
/// Of k in a stage, and in an instruction.
constexpr int depth = 64;
constexpr int step_depth = 16;
/// A row of a stage.
constexpr std::uint32_t row_bytes = depth * 2;
constexpr std::uint32_t shared_room = 227U << 10U;

/// Of a thread where two warpgroups multiply; where one does, it has enough as launched.
constexpr int producer_registers = 40;
constexpr int consumer_registers = 232;

/// Parts of k, as many as blocks of a cluster.
template <class Element, int Groups, int Rows, int Parts>
struct halved_shape : ring_block<Groups> {
  using element = Element;
  static constexpr int parts = Parts;
  /// Of a in a tile, and of w.
  static constexpr int rows = Rows;
  static constexpr int columns = Groups * group_rows;
  static constexpr std::uint32_t w_bytes = columns * row_bytes;
  static constexpr std::uint32_t w_begin = 0;
  static constexpr std::uint32_t a_begin = w_bytes;
  static constexpr std::uint32_t stage_bytes = w_bytes + rows * row_bytes;
  /// From one row of a block's sums to the next: four floats more, so that what a warp writes at
  /// once lies on different banks.
  static constexpr int pitch = columns + 4;
  static constexpr std::uint32_t sum_bytes = rows * pitch * 4;
  /// Beside the ring: 256 bytes for barriers, and the scales of rows.
  static constexpr std::uint32_t own_bytes = 256 + rows * 4;
  /// 1,024 for the alignment.
  static constexpr std::uint32_t stages =
      std::min(12U, (shared_room - own_bytes - 1024) / stage_bytes);
  static constexpr std::uint32_t shared_bytes = std::max(stages * stage_bytes, sum_bytes) + 1024;
  static_assert(shared_bytes + own_bytes <= shared_room);
};

struct halved_plan {
  CUtensorMap a;
  CUtensorMap w;
  void* out;
  std::int64_t ldo;
  int m;
  int n;
  /// Stages of all of k.
  int steps;
  /// Tiles one below the other.
  int row_tiles;
  /// Whether out is in f32, and is added to.
  bool floats;
  bool add;
  begun_norm begins;
  ended_norm ends;
  /// Columns of a.
  int k;
};

/// What a block multiplies.
struct block_work {
  int row;
  int column;
  /// Stages.
  int first;
  int end;

  template <class Shape>
  __device__ static block_work of(const halved_plan& plan) {
    const int tile = static_cast<int>(blockIdx.x) / Shape::parts;
    const int part = static_cast<int>(block_of_cluster());
    return {tile % plan.row_tiles * Shape::rows, tile / plan.row_tiles * Shape::columns,
            plan.steps * part / Shape::parts, plan.steps * (part + 1) / Shape::parts};
  }
};

/// copy_box() of what is read only once or by blocks that run side by side, and may leave L2 first.
__device__ __forceinline__ void copy_passing_box(const CUtensorMap& map, const box_place& at,
                                                 std::uint32_t to, std::uint32_t barrier) {
  std::uint64_t policy = 0;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
               ".L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
               "l"(&map), "r"(at.column), "r"(at.row), "r"(barrier), "l"(policy)
               : "memory");
}

/// The thread that brings stages: fills the ring with w, waits for what is in front, and goes on
/// with w and a.
template <class Shape>
__device__ void bring_stages(const halved_plan& plan, const block_work& work,
                             stage_ring<Shape> ring) {
  const auto bring_w = [&](const stage_ring<Shape>& to, int step) {
    arrive_expecting(to.filled(), Shape::stage_bytes);
    copy_passing_box(plan.w, {step * depth, work.column}, to.w(), to.filled());
  };
  const auto bring_a = [&](int step) {
    copy_box(plan.a, {step * depth, work.row}, ring.a(), ring.filled());
  };
  const int ahead = min(work.end, work.first + static_cast<int>(Shape::stages));
  stage_ring<Shape> first = ring;
  for (int step = work.first; step < ahead; ++step, first.next())
    bring_w(first, step);
  wait_for_before();
  for (int step = work.first; step < ahead; ++step, ring.next())
    bring_a(step);
  for (int step = ahead; step < work.end; ++step, ring.next()) {
    await(ring.emptied(), ring.phase ^ 1U);
    bring_w(ring, step);
    bring_a(step);
  }
  let_next_begin();
}

/// d = w a^T for the stages of a block, of a warpgroup's 64 rows of w.
template <class Shape>
__device__ __forceinline__ void multiply(float (&d)[Shape::rows / 2], stage_ring<Shape> ring,
                                         int steps) {
  // The same in all threads of a warp, which the compiler does not see.
  const std::uint32_t group = __shfl_sync(0xFFFFFFFFU, threadIdx.x / 128, 0);
  const std::uint64_t w = panel_operand(ring.memory + group * group_rows * row_bytes, 16);
  const std::uint64_t a = panel_operand(ring.memory + Shape::w_bytes, 16);
  if (steps == 0) {
#pragma unroll
    for (float& x : d)
      x = 0;
  }
  hold(d);
  for (int step = 0; step < steps; ++step) {
    await(ring.filled(), ring.phase);
    begin_products();
    // Addresses are in units of 16 bytes.
    const std::uint64_t stage = ring.at * (Shape::stage_bytes / 16);
#pragma unroll
    for (int k = 0; k < depth / step_depth; ++k)
      wgmma_wide<typename Shape::element, Shape::rows>(d, w + stage + k * (step_depth * 2 / 16),
                                                       a + stage + k * (step_depth * 2 / 16),
                                                       step + k);
    commit_products();
    wait_products<1>();
    if (step > 0 && threadIdx.x % 32 == 0)
      arrive(ring.emptied_before());
    ring.next();
  }
  wait_products<0>();
  hold(d);
}

/// Writes a warp's sums to shared memory, by rows of a.
template <class Shape>
__device__ __forceinline__ void keep(const float (&d)[Shape::rows / 2], std::uint32_t sums) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::uint32_t base =
      sums + static_cast<std::uint32_t>((lane % 4 * 2 * Shape::pitch + warp * 16 + lane / 4) * 4);
#pragma unroll
  for (int i = 0; i < Shape::rows / 2; ++i) {
    const int row = i / 4 * 8 + i % 2;
    const int column = i % 4 / 2 * 8;
    asm volatile("st.shared.f32 [%0], %1;" ::"r"(
                     base + static_cast<std::uint32_t>((row * Shape::pitch + column) * 4)),
                 "f"(d[i])
                 : "memory");
  }
}

/// The address of the same place in a block of the cluster.
__device__ __forceinline__ std::uint32_t address_in(std::uint32_t block, std::uint32_t address) {
  std::uint32_t there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(block));
  return there;
}

__device__ __forceinline__ float4 load_in_cluster(std::uint32_t address) {
  float4 x;
  asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w)
               : "r"(address)
               : "memory");
  return x;
}

/// Stores four outputs in T or f32, or adds them to memory without bringing what is there.
template <class T>
__device__ __forceinline__ void put_outputs(const halved_plan& plan, std::int64_t at,
                                            const float4& x) {
  float* const floats = static_cast<float*>(plan.out) + at;
  if (!plan.floats)
    *reinterpret_cast<uint2*>(static_cast<T*>(plan.out) + at) = {pack_pair<T>(x.x, x.y),
                                                                 pack_pair<T>(x.z, x.w)};
  else if (plan.add)
    asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(floats), "f"(x.x), "f"(x.y),
                 "f"(x.z), "f"(x.w)
                 : "memory");
  else
    *reinterpret_cast<float4*>(floats) = x;
}

/// The rows of a tile that a block adds up, in vectors of four outputs: a thread has those of four
/// columns, some rows apart.
template <class Shape>
struct row_share {
  static constexpr int vectors = Shape::columns / 4;
  static constexpr int step = Shape::consumers / vectors;
  static constexpr int each = Shape::rows / Shape::parts / step;
  /// Of which all parts are under way together.
  static constexpr int ahead = Shape::parts == 2 && each % 4 == 0 ? 4 : 2;
  static_assert(each % ahead == 0 && each * step * Shape::parts == Shape::rows);

  const halved_plan& plan;
  const block_work& work;
  /// Within the tile.
  int row = static_cast<int>(block_of_cluster()) * (Shape::rows / Shape::parts) +
            static_cast<int>(threadIdx.x) / vectors;
  int column = static_cast<int>(threadIdx.x) % vectors * 4;

  __device__ int row_of(int i) const { return row + i * step; }
  __device__ bool has(int i) const {
    return work.row + row_of(i) < plan.m && work.column + column < plan.n;
  }
  __device__ std::int64_t place(int i) const {
    return (work.row + row_of(i)) * plan.ldo + work.column + column;
  }

  /// Calls f with the number of each vector and what the blocks of the cluster have of it in all.
  template <class F>
  __device__ __forceinline__ void each_sum(std::uint32_t sums, F f) const {
    std::uint32_t part[Shape::parts];
#pragma unroll
    for (int p = 0; p < Shape::parts; ++p)
      part[p] = address_in(p, sums);
#pragma unroll
    for (int i = 0; i < each; i += ahead) {
      float4 x[ahead][Shape::parts];
#pragma unroll
      for (int j = 0; j < ahead; ++j) {
        const auto at = static_cast<std::uint32_t>((row_of(i + j) * Shape::pitch + column) * 4);
#pragma unroll
        for (int p = 0; p < Shape::parts; ++p)
          x[j][p] = load_in_cluster(part[p] + at);
      }
#pragma unroll
      for (int j = 0; j < ahead; ++j) {
        float4 sum = x[j][0];
#pragma unroll
        for (int p = 1; p < Shape::parts; ++p)
          sum = {sum.x + x[j][p].x, sum.y + x[j][p].y, sum.z + x[j][p].z, sum.w + x[j][p].w};
        f(i + j, sum);
      }
    }
  }

  /// Stores the outputs, or adds them to what is there.
  __device__ __forceinline__ void store(std::uint32_t sums, const float* scales) const {
    each_sum(sums, [&](int i, const float4& sum) {
      if (!has(i))
        return;
      const float by = plan.ends.squares == nullptr ? 1.0F : scales[row_of(i)];
      put_outputs<typename Shape::element>(plan, place(i),
                                           {sum.x * by, sum.y * by, sum.z * by, sum.w * by});
    });
  }

  /// Adds the outputs to `residual`, what is there, and begins the norm of that.
  __device__ __forceinline__ void begin_norm(std::uint32_t sums,
                                             const float4 (&residual)[each]) const {
    using T = typename Shape::element;
    const begun_norm& norm = plan.begins;
    float4 weight{};
    if (work.column + column < plan.n)
      weight = *reinterpret_cast<const float4*>(norm.weight + work.column + column);
    each_sum(sums, [&](int i, const float4& sum) {
      const float4 x{residual[i].x + sum.x, residual[i].y + sum.y, residual[i].z + sum.z,
                     residual[i].w + sum.w};
      constexpr int lanes = norm_part / 4;
      float squares = x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w;
#pragma unroll
      for (int apart = lanes / 2; apart > 0; apart /= 2)
        squares += __shfl_xor_sync(0xFFFFFFFFU, squares, apart);
      if (!has(i))
        return;
      *reinterpret_cast<float4*>(static_cast<float*>(plan.out) + place(i)) = x;
      const std::int64_t at =
          static_cast<std::int64_t>(work.row + row_of(i)) * plan.n + work.column + column;
      *reinterpret_cast<uint2*>(static_cast<T*>(norm.rows) +
                                at) = {pack_pair<T>(x.x * weight.x, x.y * weight.y),
                                       pack_pair<T>(x.z * weight.z, x.w * weight.w)};
      if (threadIdx.x % lanes == 0)
        norm.squares[at / norm_part] = squares;
    });
  }

  /// Vectors [Begin, End) of what is there. As many as registers have room for come before the
  /// products, the others behind them.
  static constexpr int early = std::min(each, 8);
  template <int Begin, int End>
  __device__ __forceinline__ void load_residual(float4 (&to)[each]) const {
#pragma unroll
    for (int i = Begin; i < End; ++i)
      to[i] = has(i) ? __ldcg(reinterpret_cast<const float4*>(static_cast<const float*>(plan.out) +
                                                              place(i)))
                     : float4{};
  }
};

template <class Shape>
__global__ void __cluster_dims__(Shape::parts, 1, 1) __launch_bounds__(Shape::threads, 1)
    halved_kernel(const __grid_constant__ halved_plan plan) {
  extern __shared__ unsigned char memory[];
  __shared__ __align__(8) std::uint64_t barriers[2 * Shape::stages];
  __shared__ float scales[Shape::rows];
  const stage_ring<Shape> ring{(shared_address(memory) + 1023) / 1024 * 1024,
                               shared_address(barriers), shared_address(barriers + Shape::stages)};
  if (Shape::fills()) {
    fetch_description(plan.a);
    fetch_description(plan.w);
    for (std::uint32_t i = 0; i < Shape::stages; ++i) {
      init_barrier(ring.full + i * 8, 1);
      // Each warp that multiplies.
      init_barrier(ring.empty + i * 8, Shape::consumers / 32);
    }
    show_barriers();
  }
  __syncthreads();
  const block_work work = block_work::of<Shape>(plan);
  if (threadIdx.x >= Shape::consumers) {
    if constexpr (Shape::groups > 1)
      asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(producer_registers));
    if (Shape::fills())
      bring_stages<Shape>(plan, work, ring);
    if (Shape::ends_norms() && plan.ends.squares != nullptr) {
      wait_for_before();
      leave_scales<Shape::rows, Shape::norm_threads, 2>({plan.ends, plan.k, work.row, plan.m - 1},
                                                        scales, Shape::norm_thread());
    }
    __syncwarp();
    meet_cluster();
  } else {
    if constexpr (Shape::groups > 1)
      asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(consumer_registers));
    const row_share<Shape> share{plan, work};
    const bool begins = plan.begins.weight != nullptr;
    float4 residual[row_share<Shape>::each];
    float d[Shape::rows / 2];
    // The kernel in front does not write it, and is behind all that do.
    if (begins)
      share.template load_residual<0, share.early>(residual);
    wait_for_before();
    multiply<Shape>(d, ring, work.end - work.first);
    // All warps have read the stages that sums take the place of.
    meet<Shape::consumers>(1);
    keep<Shape>(d, ring.memory);
    if (begins)
      share.template load_residual<share.early, share.each>(residual);
    meet_cluster();
    if (begins)
      share.begin_norm(ring.memory, residual);
    else
      share.store(ring.memory, scales);
  }
  // The other blocks may still read this one's sums.
  meet_cluster();
}

template <class Shape>
result<void> launch(const ordered_matmul_args& args, cudaStream_t stream) {
  const auto type =
      args.type == dtype::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  const auto a = describe_boxes({args.a, args.m, args.k, args.lda, Shape::rows}, type);
  const auto w = describe_boxes({args.w, args.n, args.k, args.k, Shape::columns}, type);
  if (!a || !w)
    return fail(a ? w.error() : a.error());
  const halved_plan plan{.a = *a,
                         .w = *w,
                         .out = args.out,
                         .ldo = args.ldo,
                         .m = static_cast<int>(args.m),
                         .n = static_cast<int>(args.n),
                         .steps = ceil_div(args.k, depth),
                         .row_tiles = ceil_div(args.m, Shape::rows),
                         .floats = args.out_type == dtype::f32,
                         .add = args.add,
                         .begins = args.begins,
                         .ends = args.ends,
                         .k = static_cast<int>(args.k)};
  const int blocks = plan.row_tiles * ceil_div(args.n, Shape::columns) * Shape::parts;
  auto* const kernel = halved_kernel<Shape>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::shared_bytes);
  launch_early(kernel,
               {dim3(static_cast<unsigned>(blocks)), Shape::threads, Shape::shared_bytes, stream},
               plan);
  return launched("halved_matmul");
}

/// A way to cut a product into tiles.
struct halved_form {
  int columns;
  int rows;
  int parts;
  result<void> (*launch)(const ordered_matmul_args&, cudaStream_t);
};

template <int Groups, int Rows, int Parts>
result<void> launch_type(const ordered_matmul_args& args, cudaStream_t on) {
  return with_16_bits(args.type, [&](auto element) {
    return launch<halved_shape<decltype(element), Groups, Rows, Parts>>(args, on);
  });
}
template <int Groups, int Rows, int Parts = 2>
constexpr halved_form form_of{Groups * group_rows, Rows, Parts, launch_type<Groups, Rows, Parts>};

/// Of those that take the same time, one warpgroup is the quicker in whole steps.
constexpr std::array forms{form_of<1, 64>,  form_of<1, 96>,    form_of<1, 128>,   form_of<1, 160>,
                           form_of<1, 192>, form_of<1, 256>,   form_of<2, 64>,    form_of<2, 96>,
                           form_of<2, 128>, form_of<2, 160>,   form_of<2, 192>,   form_of<2, 224>,
                           form_of<2, 256>, form_of<1, 64, 4>, form_of<1, 128, 4>};

/// How many clusters of a form have a place at a time. As GPCs differ, an H100 has room for 30 of
/// four.
int clusters_of(const halved_form& form, int multiprocessors) {
  return form.parts == 2 ? multiprocessors / 2 : multiprocessors / form.parts - 3;
}

/// About how many cycles a product takes.
double cycles_of(const halved_form& form, const ordered_matmul_args& args, int multiprocessors) {
  const int tiles = ceil_div(args.m, form.rows) * ceil_div(args.n, form.columns);
  const int turns = ceil_div(tiles, clusters_of(form, multiprocessors));
  // wgmma reads and copies write at 128 bytes a cycle.
  const double bytes = form.columns / group_rows * 4.0 * (2048 + form.rows * 32) +
                       (form.columns + form.rows) * static_cast<double>(row_bytes);
  const double stage = std::max(form.columns * form.rows / 32.0, bytes / 128);
  return turns *
         (ceil_div(args.k, depth * form.parts) * stage + 6000 + form.columns * form.rows / 8.0);
}

} // namespace

bool takes_halved(const ordered_matmul_args& args) noexcept {
  ordered_matmul_args stored = args;
  stored.begins = {};
  const bool begins = args.begins.weight == nullptr ||
                      (args.add && args.n % norm_part == 0 && aligned(args.begins.weight, 16, 16) &&
                       aligned(args.begins.rows, args.n * 2, 16));
  return takes_wide(stored) && begins && args.leaders == nullptr && args.m <= max_halved_rows;
}

result<void> halved_matmul(const ordered_matmul_args& args, stream_ref stream) {
  if (!takes_halved(args))
    return fail(errc::unsupported,
                "halved_matmul: takes up to 512 rows of 16 bits in multiples of 8 and of 16 bytes");
  const int multiprocessors = count_multiprocessors();
  const auto& best =
      *std::min_element(forms.begin(), forms.end(), [&](const auto& x, const auto& y) {
        return cycles_of(x, args, multiprocessors) < cycles_of(y, args, multiprocessors);
      });
  return best.launch(args, stream);
}

} // namespace troupe::kernels::cuda
