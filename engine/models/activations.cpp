#include "engine/models/activations.hpp"

#include <array>

namespace troupe::engine {

namespace {

using kernels::dtype;

/// One buffer of the set: where it goes and what it holds.
struct wanted_rows {
  rows_buffer activations::*member;
  std::int64_t rows;
  std::int64_t cols;
  dtype type;
};

std::array<wanted_rows, 11> layout_of(const model_config& config, const activation_limits& limits) {
  const std::int64_t query = config.heads * config.head_dim;
  const std::int64_t qkv = query + 2 * config.kv_heads * config.head_dim;
  const std::int64_t others = limits.ranks == 1 ? 0 : limits.ranks;
  const std::int64_t logits = (config.vocab_size + limits.ranks - 1) / limits.ranks;
  const std::int64_t privates = activations::private_norm_rows * limits.threads;
  return {{
      {&activations::residual, limits.rows, config.hidden_size, dtype::f32},
      {&activations::normed, limits.rows, config.hidden_size, limits.compute},
      {&activations::private_normed, privates, config.hidden_size, limits.compute},
      {&activations::qkv, limits.rows, qkv, dtype::f32},
      {&activations::query, limits.rows, query, limits.kv},
      {&activations::attended, limits.rows, query, limits.compute},
      {&activations::gated, limits.rows, config.intermediate_size, limits.compute},
      {&activations::sampled, limits.sampled_rows, config.hidden_size, dtype::f32},
      {&activations::logits_rows, limits.sampled_rows, config.vocab_size, dtype::f32},
      {&activations::gathered, others * limits.rows, config.hidden_size, dtype::f32},
      {&activations::gathered_logits, others * limits.sampled_rows, logits, dtype::f32},
  }};
}

} // namespace

result<rows_buffer> rows_buffer::make(std::int64_t rows, std::int64_t cols, dtype type) {
  rows_buffer made;
  made.stride_ = kernels::activation_stride(cols, type);
  made.type_ = type;
  auto memory =
      kernels::buffer::make(static_cast<std::size_t>(rows * made.stride_) * kernels::size_of(type));
  if (!memory)
    return fail(memory.error());
  made.memory_ = std::move(*memory);
  return made;
}

result<activations> activations::make(const model_config& config, const activation_limits& limits) {
  activations made;
  for (const wanted_rows& one : layout_of(config, limits)) {
    auto rows = rows_buffer::make(one.rows, one.cols, one.type);
    if (!rows)
      return fail(rows.error());
    made.*one.member = std::move(*rows);
  }
  return made;
}

std::uint64_t activations::bytes_for(const model_config& config,
                                     const activation_limits& limits) noexcept {
  std::uint64_t bytes = 0;
  for (const wanted_rows& one : layout_of(config, limits))
    bytes += static_cast<std::uint64_t>(one.rows * kernels::activation_stride(one.cols, one.type)) *
             kernels::size_of(one.type);
  return bytes;
}

} // namespace troupe::engine
