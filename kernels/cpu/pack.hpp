#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/cpu/tensor.hpp"

namespace troupe::kernels::cpu {

class team;

/// Outputs of one panel: the width of the packed layout.
inline constexpr std::int64_t panel_width = 32;
/// Segments of the k tree of a whole model; K of a matrix used with them is a multiple of twice
/// this.
inline constexpr std::int64_t tree_segments = 8;

enum class pack_layout : std::uint8_t {
  /// Output n lies in panel n / 32, column n % 32.
  plain,
  /// Two sources of equal shape, gate and up: panel p holds gate rows 16p.. in its first 16
  /// columns and the up rows of the same numbers in its last 16, so that silu(gate) * up is made
  /// where both are still in the cache.
  gate_up,
};

/// Weights W[N, K] in the order in which the product kernels read them: panels of 32 outputs, bf16
/// as [N/32][K/2][32][2] (pairs of k adjacent) or f32 as [N/32][K][32]; N and K are padded with
/// zeros. One layout serves every batch size and every instruction-set path. Move-only.
class packed_matrix {
public:
  packed_matrix() noexcept = default;

  /// Outputs: the rows of all sources together (gate_up: gate and up).
  [[nodiscard]] std::int64_t rows() const noexcept { return rows_; }
  /// Inputs, without padding.
  [[nodiscard]] std::int64_t cols() const noexcept { return cols_; }
  /// Inputs with padding: cols(), made even for bf16. Activations have at least this stride, and
  /// finite values in the padding.
  [[nodiscard]] std::int64_t padded_cols() const noexcept { return padded_cols_; }
  [[nodiscard]] std::int64_t panels() const noexcept { return panels_; }
  /// The compute type: that of the weights here and of the activations they are used with.
  [[nodiscard]] dtype type() const noexcept { return type_; }
  [[nodiscard]] pack_layout layout() const noexcept { return layout_; }
  /// Bytes of memory, padding included.
  [[nodiscard]] std::size_t bytes() const noexcept { return data_.size(); }
  /// Elements of one panel.
  [[nodiscard]] std::int64_t panel_size() const noexcept { return padded_cols_ * panel_width; }
  /// First element of `panel`.
  [[nodiscard]] const void* panel(std::int64_t panel) const noexcept {
    return data_.as<std::byte>() + panel * panel_size() * static_cast<std::int64_t>(size_of(type_));
  }

private:
  friend result<packed_matrix> pack(const struct pack_args& args);
  buffer data_;
  std::int64_t rows_ = 0;
  std::int64_t cols_ = 0;
  std::int64_t padded_cols_ = 0;
  std::int64_t panels_ = 0;
  dtype type_ = dtype::f32;
  pack_layout layout_ = pack_layout::plain;
};

struct pack_args {
  /// Row-concatenated [rows, cols] matrices, as in a checkpoint (q, k, v merged, for example).
  /// Exactly two of equal shape for gate_up. Any dtype, each its own; row strides free.
  std::span<const tensor_view> sources;
  /// bf16 or f32.
  dtype compute = dtype::bf16;
  pack_layout layout = pack_layout::plain;
  /// Threads to share the work with; nullptr means the caller alone. Must not be running.
  team* helpers = nullptr;
};

/// Packs weights, once at load.
/// @errors bad_shape: no source, a source that is not a matrix, columns that differ, gate_up
///         without two equal shapes; unsupported: a compute type of f16; out_of_memory
/// @cost   reads the sources once and writes bytes() once
[[nodiscard]] result<packed_matrix> pack(const pack_args& args);

} // namespace troupe::kernels::cpu
