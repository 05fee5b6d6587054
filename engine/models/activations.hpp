#pragma once

#include "engine/weights/model_config.hpp"
#include "kernels/cpu/tensor.hpp"

#include <cstddef>
#include <cstdint>

namespace troupe::engine {

/// Rows of one width in one type, with the stride that the kernels like.
class rows_buffer {
public:
  rows_buffer() noexcept = default;
  /// @errors out_of_memory
  [[nodiscard]] static result<rows_buffer> make(std::int64_t rows, std::int64_t cols,
                                                kernels::dtype type);

  [[nodiscard]] std::int64_t stride() const noexcept { return stride_; }
  [[nodiscard]] kernels::dtype type() const noexcept { return type_; }
  [[nodiscard]] void* data() noexcept { return memory_.data(); }
  [[nodiscard]] float* floats() noexcept { return memory_.as<float>(); }
  [[nodiscard]] void* row(std::int64_t index) noexcept {
    const auto bytes = index * stride_ * static_cast<std::int64_t>(kernels::size_of(type_));
    return memory_.as<std::byte>() + bytes;
  }
  [[nodiscard]] std::size_t bytes() const noexcept { return memory_.size(); }

private:
  kernels::buffer memory_;
  std::int64_t stride_ = 0;
  kernels::dtype type_ = kernels::dtype::f32;
};

/// How much a forward pass may have of everything.
struct activation_limits {
  std::int64_t rows = 0;
  std::int64_t sampled_rows = 0;
  unsigned threads = 1;
  /// Ranks of the model, whose parts of a sum or of the logits are gathered.
  std::uint32_t ranks = 1;
  /// Of the inputs of products: f32 or bf16.
  kernels::dtype compute = kernels::dtype::f32;
  /// Of queries: the KV cache's type.
  kernels::dtype kv = kernels::dtype::f32;
};

/// The working memory of forward passes, made once. Pages that no pass has touched cost nothing.
struct activations {
  /// Up to this many rows every thread norms all rows for itself, which saves a barrier.
  static constexpr std::int64_t private_norm_rows = 8;

  /// @errors out_of_memory
  [[nodiscard]] static result<activations> make(const model_config& config,
                                                const activation_limits& limits);

  /// Bytes that `limits` need, to be asked for before they are reserved.
  [[nodiscard]] static std::uint64_t bytes_for(const model_config& config,
                                               const activation_limits& limits) noexcept;

  rows_buffer residual;
  rows_buffer normed;
  /// private_norm_rows rows for each thread.
  rows_buffer private_normed;
  rows_buffer qkv;
  rows_buffer query;
  rows_buffer attended;
  rows_buffer gated;
  rows_buffer sampled;
  rows_buffer logits_rows;
  /// Of each rank of a split model: its parts of the sums of the rows, and of the logits.
  rows_buffer gathered;
  rows_buffer gathered_logits;

  [[nodiscard]] const float* logits(std::int64_t row) noexcept {
    return static_cast<const float*>(logits_rows.row(row));
  }
};

} // namespace troupe::engine
