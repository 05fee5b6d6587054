// Operations on rows: embedding, residual with RMS norm, SiLU times up. All are bound by memory:
// each operand is read once and each result written once, in vectors where alignment allows.
// Roofline at 4096 columns in bf16: a norm moves 12 bytes a column, 49 KiB a row.
#include "kernels/cuda/device.cuh"

#include <algorithm>

namespace troupe::kernels::cuda {

namespace {

constexpr int norm_threads = 1024;
constexpr int norm_items = 16;
/// A block this small finds room beside the blocks of a product, so that it, and what follows it,
/// can be there before the product ends.
constexpr int norm_threads_few = 256;

template <class T>
__global__ void embed_kernel(embed_args args) {
  let_next_begin();
  const std::int64_t row = blockIdx.x;
  std::int32_t token = args.batch[row].token;
  if (token < 0)
    token = args.sampled[-1 - token];
  const T* const from = static_cast<const T*>(args.table) + token * args.cols;
  float* const to = args.out + row * args.out_stride;
  for (std::int64_t c = threadIdx.x; c < args.cols; c += blockDim.x)
    to[c] = to_float(from[c]);
}

/// One block per row; the row is held in registers between the two passes over it. A thread's
/// share depends on the number of columns alone, so a row has one order of summation.
template <class T, int Width>
__global__ void __launch_bounds__(norm_threads) rms_norm_kernel(rms_norm_args args) {
  __shared__ float scratch[33];
  constexpr int rounds = norm_items / Width;
  let_next_begin();
  pack<float, Width> weight[rounds];
#pragma unroll
  for (int i = 0; i < rounds; ++i) {
    const std::int64_t c = (static_cast<std::int64_t>(i) * blockDim.x + threadIdx.x) * Width;
    if (c < args.cols)
      weight[i] = *reinterpret_cast<const pack<float, Width>*>(args.weight + c);
  }
  wait_for_before();
  const std::int64_t row = args.pick == nullptr ? blockIdx.x : args.pick[blockIdx.x];
  float* const residual = args.residual + row * args.residual_stride;
  const T* const delta = static_cast<const T*>(args.delta) + row * args.delta_stride;
  pack<float, Width> held[rounds];
  pack<T, Width> more[rounds];
  // All loads ahead of the first store, which could be to where they read.
#pragma unroll
  for (int i = 0; i < rounds; ++i) {
    const std::int64_t c = (static_cast<std::int64_t>(i) * blockDim.x + threadIdx.x) * Width;
    if (c >= args.cols)
      break;
    held[i] = *reinterpret_cast<const pack<float, Width>*>(residual + c);
    if (args.delta != nullptr)
      more[i] = *reinterpret_cast<const pack<T, Width>*>(delta + c);
  }
  float squares = 0;
#pragma unroll
  for (int i = 0; i < rounds; ++i) {
    const std::int64_t c = (static_cast<std::int64_t>(i) * blockDim.x + threadIdx.x) * Width;
    if (c >= args.cols)
      break;
    if (args.delta != nullptr) {
      for (int j = 0; j < Width; ++j)
        held[i].item[j] += to_float(more[i].item[j]);
      if (args.pick == nullptr)
        *reinterpret_cast<pack<float, Width>*>(residual + c) = held[i];
    }
    for (int j = 0; j < Width; ++j)
      squares = fmaf(held[i].item[j], held[i].item[j], squares);
  }
  const float mean = block_sum(squares, scratch) / static_cast<float>(args.cols);
  const float scale = 1.0F / sqrtf(mean + args.eps);
  T* const out = static_cast<T*>(args.out) + blockIdx.x * args.out_stride;
#pragma unroll
  for (int i = 0; i < rounds; ++i) {
    const std::int64_t c = (static_cast<std::int64_t>(i) * blockDim.x + threadIdx.x) * Width;
    if (c >= args.cols)
      break;
    pack<T, Width> made;
    for (int j = 0; j < Width; ++j)
      made.item[j] = from_float<T>(held[i].item[j] * scale * weight[i].item[j]);
    *reinterpret_cast<pack<T, Width>*>(out + c) = made;
  }
}

/// Of T's size, whatever they are.
template <class T>
__global__ void pick_rows_kernel(pick_rows_args args) {
  let_next_begin();
  wait_for_before();
  const std::int64_t c = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (c >= args.cols)
    return;
  const std::int64_t row = blockIdx.y;
  const std::int64_t from = args.pick == nullptr ? row : args.pick[row];
  static_cast<T*>(args.to)[row * args.to_stride + c] =
      static_cast<const T*>(args.from)[from * args.from_stride + c];
}

template <class T, int Width>
__global__ void silu_mul_kernel(silu_mul_args args) {
  let_next_begin();
  wait_for_before();
  const std::int64_t c = (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * Width;
  if (c >= args.cols)
    return;
  for (std::int64_t row = blockIdx.y; row < args.rows; row += gridDim.y) {
    const T* const from = static_cast<const T*>(args.gate_up) + row * args.stride + c;
    const auto gate = *reinterpret_cast<const pack<T, Width>*>(from);
    const auto up = *reinterpret_cast<const pack<T, Width>*>(from + args.cols);
    pack<T, Width> made;
    for (int j = 0; j < Width; ++j) {
      made.item[j] = from_float<T>(gated(to_float(gate.item[j]), to_float(up.item[j])));
    }
    *reinterpret_cast<pack<T, Width>*>(static_cast<T*>(args.out) + row * args.out_stride + c) =
        made;
  }
}

template <class T, int Width>
void launch_norm(const rms_norm_args& args, cudaStream_t stream) {
  const std::int64_t vectors = (args.cols + Width - 1) / Width;
  const std::int64_t most =
      args.cols <= norm_threads_few * norm_items ? norm_threads_few : norm_threads;
  const auto threads = static_cast<unsigned>(std::min(most, (vectors + 31) / 32 * 32));
  launch_early(rms_norm_kernel<T, Width>,
               {dim3(static_cast<unsigned>(args.rows)), threads, 0, stream}, args);
}

template <class T, int Width>
void launch_silu(const silu_mul_args& args, cudaStream_t stream) {
  constexpr int threads = 128;
  const std::int64_t blocks = (args.cols + threads * Width - 1) / (threads * Width);
  const auto rows = static_cast<unsigned>(args.rows < 32768 ? args.rows : 32768);
  launch_early(silu_mul_kernel<T, Width>,
               {dim3(static_cast<unsigned>(blocks), rows), threads, 0, stream}, args);
}

/// Rows as vectors of T, each of `size` of their elements.
template <class T>
void launch_pick(pick_rows_args args, std::int64_t size, cudaStream_t stream) {
  args.cols /= size;
  args.from_stride /= size;
  args.to_stride /= size;
  constexpr unsigned threads = 128;
  const auto blocks = static_cast<unsigned>((args.cols + threads - 1) / threads);
  launch_early(pick_rows_kernel<T>,
               {dim3(blocks, static_cast<unsigned>(args.rows)), threads, 0, stream}, args);
}

result<void> check(const rms_norm_args& args) {
  if (args.cols <= 0 || args.rows < 0 || args.residual_stride < args.cols ||
      args.out_stride < args.cols || (args.delta != nullptr && args.delta_stride < args.cols))
    return fail(errc::bad_shape, "rms_norm: strides below the " + std::to_string(args.cols) +
                                     " columns, or no columns");
  if (args.cols > max_norm_cols)
    return fail(errc::unsupported, "rms_norm: " + std::to_string(args.cols) +
                                       " columns; the kernel holds up to " +
                                       std::to_string(max_norm_cols));
  return {};
}

} // namespace

result<void> embed(const embed_args& args, stream_ref stream) {
  if (args.cols <= 0 || args.rows < 0 || args.out_stride < args.cols)
    return fail(errc::bad_shape, "embed: the stride is below the columns, or there are none");
  if (args.rows == 0)
    return {};
  const unsigned threads = args.cols >= 256 ? 256 : 64;
  with_type(args.type, [&](auto element) {
    embed_kernel<decltype(element)><<<static_cast<unsigned>(args.rows), threads, 0, stream>>>(args);
  });
  return launched("embed");
}

result<void> rms_norm(const rms_norm_args& args, stream_ref stream) {
  if (auto good = check(args); !good)
    return good;
  if (args.rows == 0)
    return {};
  with_type(args.type, [&](auto element) {
    using T = decltype(element);
    const auto size = static_cast<std::int64_t>(sizeof(T));
    const bool wide = args.cols % 4 == 0 && aligned(args.residual, args.residual_stride * 4, 16) &&
                      aligned(args.weight, 16, 16) &&
                      aligned(args.delta, args.delta_stride * size, 4 * static_cast<int>(size)) &&
                      aligned(args.out, args.out_stride * size, 4 * static_cast<int>(size));
    if (wide)
      launch_norm<T, 4>(args, stream);
    else
      launch_norm<T, 1>(args, stream);
  });
  return launched("rms_norm");
}

result<void> pick_rows(const pick_rows_args& args, stream_ref stream) {
  constexpr std::int64_t most = 65535;
  if (args.cols <= 0 || args.rows < 0 || args.rows > most || args.from_stride < args.cols ||
      args.to_stride < args.cols)
    return fail(errc::bad_shape, "pick_rows: strides below the " + std::to_string(args.cols) +
                                     " columns, no columns, or more than 65535 rows");
  if (args.rows == 0)
    return {};
  const auto size = static_cast<std::int64_t>(size_of(args.type));
  const std::int64_t vector = 16 / size;
  if (args.cols % vector == 0 && aligned(args.from, args.from_stride * size, 16) &&
      aligned(args.to, args.to_stride * size, 16))
    launch_pick<uint4>(args, vector, stream);
  else if (size == 4)
    launch_pick<std::uint32_t>(args, 1, stream);
  else
    launch_pick<std::uint16_t>(args, 1, stream);
  return launched("pick_rows");
}

result<void> silu_mul(const silu_mul_args& args, stream_ref stream) {
  if (args.cols <= 0 || args.rows < 0 || args.stride < 2 * args.cols || args.out_stride < args.cols)
    return fail(errc::bad_shape, "silu_mul: strides below the columns, or no columns");
  if (args.rows == 0)
    return {};
  with_type(args.type, [&](auto element) {
    using T = decltype(element);
    constexpr int width = 16 / static_cast<int>(sizeof(T));
    const auto size = static_cast<std::int64_t>(sizeof(T));
    if (args.cols % width == 0 && aligned(args.gate_up, args.stride * size, 16) &&
        aligned(args.out, args.out_stride * size, 16))
      launch_silu<T, width>(args, stream);
    else
      launch_silu<T, 1>(args, stream);
  });
  return launched("silu_mul");
}

} // namespace troupe::kernels::cuda
