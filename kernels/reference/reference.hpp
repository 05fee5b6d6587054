#pragma once

#include <cstdint>
#include <span>
#include <vector>

/// What the kernels mean: plain loops in double, with no blocking, packing, paging or threads. Slow
/// on purpose; nothing here shares code with the kernels that it judges.
namespace troupe::kernels::reference {

/// A W^T for a [rows, k] and w [n, k], both contiguous.
/// @returns [rows, n]
[[nodiscard]] std::vector<double> linear(std::span<const double> a, std::span<const double> w,
                                         std::int64_t k);

/// silu(gate) * up, element by element; silu(x) = x / (1 + exp(-x)).
[[nodiscard]] std::vector<double> silu_mul(std::span<const double> gate,
                                           std::span<const double> up);

/// x / sqrt(mean(x^2) + eps) * weight for each row of weight.size() elements.
[[nodiscard]] std::vector<double> rms_norm(std::span<const double> x,
                                           std::span<const double> weight, double eps);

/// Turns the first `rotary_dim` elements of `head` by position * theta^(-2 i / rotary_dim), the
/// first half of them against the second (neox).
[[nodiscard]] std::vector<double> rope(std::span<const double> head, std::int64_t position,
                                       std::int64_t rotary_dim, double theta);

/// The sizes of one sequence's attention. Rows are the last ones of the sequence.
struct attention_shape {
  std::int64_t rows = 0;
  std::int64_t positions = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t dim = 0;
  double scale = 0;
};

/// Causal attention: softmax(q k^T scale) v over the positions up to each row's own.
/// @shape  q [rows, heads, dim]; k, v [positions, kv_heads, dim]
/// @returns [rows, heads, dim]
[[nodiscard]] std::vector<double> attention(const attention_shape& shape, std::span<const double> q,
                                            std::span<const double> k, std::span<const double> v);

} // namespace troupe::kernels::reference
