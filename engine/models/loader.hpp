#pragma once

#include "engine/models/shard.hpp"
#include "engine/weights/model_config.hpp"
#include "engine/weights/weight_source.hpp"
#include "kernels/cpu/pack.hpp"

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::engine {

/// What a recipe loads a model from.
struct load_context {
  /// The whole model's.
  model_config config;
  weight_source* source = nullptr;
  /// On the CPU f32 or bf16.
  kernels::dtype compute = kernels::dtype::f32;
  /// Positions that rope tables cover.
  std::int64_t max_positions = 0;
  /// Shares the packing; nullptr means the caller alone.
  kernels::cpu::team* helpers = nullptr;
  /// Called after each layer with the share of the weights that is loaded, 0 to 1; may be empty.
  std::function<void(double)> progress;
  /// The part that is loaded.
  model_shard shard{};
};

/// One of the matrices that are merged into a packed one: its name and its number of rows.
struct matrix_part {
  std::string name;
  std::int64_t rows = 0;
};

/// How matrices are packed.
struct matrix_form {
  kernels::cpu::pack_layout layout = kernels::cpu::pack_layout::plain;
  /// Which part of each the rank has.
  shard_axis axis = shard_axis::none;
};

/// The rank's part of the named matrices, packed one under the other. Sizes are the whole model's.
/// @errors not_found, bad_shape, unsupported, corrupt_data, out_of_memory; the note names the
/// tensor
[[nodiscard]] result<kernels::cpu::packed_matrix> load_matrix(const load_context& from,
                                                              std::span<const matrix_part> parts,
                                                              std::int64_t cols,
                                                              const matrix_form& form = {});

/// The named vector as f32.
/// @errors as load_matrix
[[nodiscard]] result<std::vector<float>> load_vector(const load_context& from,
                                                     const std::string& name, std::int64_t size);

/// Fails when the checkpoint holds tensors that the model has not asked for, except those whose
/// name ends in one of `ignored`: they would be silently without effect.
/// @errors unsupported: names them
[[nodiscard]] result<void> check_all_used(const load_context& from,
                                          std::span<const std::string_view> ignored);

} // namespace troupe::engine
