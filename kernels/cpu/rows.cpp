#include "kernels/cpu/kernel_table.hpp"
#include "kernels/cpu/ops.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

// Operations on single rows. All are bound by memory, and small beside the products.
namespace troupe::kernels::cpu {

void embed(member& m, const embed_args& args) {
  const std::int64_t cols = args.table.shape[1];
  const share mine = m.split(static_cast<std::int64_t>(args.tokens.size()));
  for (std::int64_t i = mine.begin; i < mine.end; ++i) {
    const std::int64_t from = args.tokens[static_cast<std::size_t>(i)] * args.table.stride();
    float* out = args.out + i * args.out_stride;
    for (std::int64_t c = 0; c < cols; ++c)
      out[c] = load_as_f32(args.table.data, args.table.type, from + c);
  }
}

void rms_norm(member& m, const rms_norm_args& args) {
  const kernel_table& kernels = m.kernels();
  const share mine = args.every_member ? share{0, args.rows} : m.split(args.rows);
  for (std::int64_t row = mine.begin; row < mine.end; ++row) {
    const float* x = args.x + row * args.x_stride;
    const float mean = kernels.sum_squares(x, args.cols) / static_cast<float>(args.cols);
    const float scale = 1.0F / std::sqrt(mean + args.eps);
    const std::int64_t at = row * args.out_stride;
    if (args.out_type == dtype::f32) {
      kernels.scale_f32(x, args.weight, scale, static_cast<float*>(args.out) + at, args.cols);
      continue;
    }
    auto* out = static_cast<std::uint16_t*>(args.out) + at;
    kernels.scale_bf16(x, args.weight, scale, out, args.cols);
    if (args.cols % 2 != 0 && args.out_stride > args.cols)
      out[args.cols] = 0;
  }
}

void silu_mul(member& m, const silu_mul_args& args) {
  const kernel_table& kernels = m.kernels();
  const share mine = m.split(args.rows);
  for (std::int64_t row = mine.begin; row < mine.end; ++row) {
    const float* gate = args.gate + row * args.stride;
    const float* up = args.up + row * args.stride;
    const std::int64_t at = row * args.out_stride;
    if (args.out_type == dtype::f32)
      kernels.silu_f32(gate, up, static_cast<float*>(args.out) + at, args.cols);
    else
      kernels.silu_bf16(gate, up, static_cast<std::uint16_t*>(args.out) + at, args.cols);
  }
}

void add(member& m, const add_args& args) {
  const share mine = m.split(args.rows);
  for (std::int64_t row = mine.begin; row < mine.end; ++row)
    m.kernels().add(args.x + row * args.x_stride, args.y + row * args.y_stride, args.cols);
}

void gather_rows(member& m, const gather_rows_args& args) {
  const share mine = m.split(static_cast<std::int64_t>(args.rows.size()));
  for (std::int64_t i = mine.begin; i < mine.end; ++i)
    std::copy_n(args.x + args.rows[static_cast<std::size_t>(i)] * args.x_stride, args.cols,
                args.out + i * args.out_stride);
}

result<void> check(const embed_args& args) {
  if (args.table.rank != 2 || args.table.data == nullptr)
    return fail(errc::bad_shape, "the embedding table is not a matrix");
  if (!args.tokens.empty() && (args.out == nullptr || args.out_stride < args.table.shape[1]))
    return fail(errc::bad_shape, fmt::format("embeddings of {} columns into rows {} apart",
                                             args.table.shape[1], args.out_stride));
  for (const token_id token : args.tokens)
    if (token < 0 || token >= args.table.shape[0])
      return fail(errc::invalid_argument, fmt::format("token {} is outside the vocabulary of {}",
                                                      token, args.table.shape[0]));
  return {};
}

result<void> check(const rms_norm_args& args) {
  if (args.out_type == dtype::f16)
    return fail(errc::unsupported, "rms_norm writes f32 or bf16, not f16");
  if (args.cols <= 0 || args.rows < 0 || args.weight == nullptr)
    return fail(errc::bad_shape, fmt::format("a norm of {} rows of {}", args.rows, args.cols));
  if (args.rows > 0 && (args.x == nullptr || args.out == nullptr))
    return fail(errc::bad_shape, "a norm without input or output");
  if (args.rows > 1 && (args.x_stride < args.cols || args.out_stride < args.cols))
    return fail(errc::bad_shape, fmt::format("norm of {} columns with strides {} and {}", args.cols,
                                             args.x_stride, args.out_stride));
  return {};
}

} // namespace troupe::kernels::cpu
