#pragma once

#include "engine/exec/cuda/runtime.hpp"
#include "engine/models/loader.hpp"

#include <array>
#include <optional>
#include <span>
#include <string>

namespace troupe::engine::cuda {

/// Brings weights to the device in the compute type: from the checkpoint's mapping through
/// page-locked memory, converted by the team of `from.helpers` while the copy before is under way;
/// or, with a seed, made on the device with the very values of make_dummy_weights().
class weight_uploader {
public:
  /// @pre    `from` outlives this object
  /// @errors out_of_memory, internal
  [[nodiscard]] static result<weight_uploader>
  make(const load_context& from, std::optional<std::uint64_t> dummy_seed, stream_ref on);

  /// The rank's part of the named matrices, one under the other, contiguous: [sum of rows, cols]
  /// of the whole. Sizes are the whole model's.
  /// @errors as load_matrix
  [[nodiscard]] result<device_buffer> matrix(std::span<const matrix_part> parts, std::int64_t cols,
                                             shard_axis axis = shard_axis::none);
  /// The named vector as f32.
  /// @errors as load_vector
  [[nodiscard]] result<device_buffer> vector(const std::string& name, std::int64_t size);
  /// Floats of the host.
  [[nodiscard]] result<device_buffer> floats(std::span<const float> values, std::string_view what);

  /// Waits until everything has arrived.
  [[nodiscard]] result<void> finish();

  /// What matrices took so far.
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

private:
  [[nodiscard]] result<void> copy(std::byte* to, const kernels::tensor_view& view);
  /// Elements [begin, begin + count) of a matrix, row by row, to page-locked memory.
  [[nodiscard]] result<void> stage(std::byte* to, const kernels::tensor_view& view,
                                   std::int64_t begin, std::int64_t count);
  [[nodiscard]] result<void> fill(std::byte* to, const matrix_part& part, std::int64_t cols,
                                  shard_axis axis);

  static constexpr std::size_t staging_bytes = std::size_t{32} << 20U;

  const load_context* from_ = nullptr;
  std::optional<std::uint64_t> dummy_seed_;
  stream_ref stream_ = nullptr;
  std::array<pinned_buffer, 2> staging_;
  std::array<event, 2> copied_;
  std::size_t turn_ = 0;
  std::uint64_t bytes_ = 0;
};

} // namespace troupe::engine::cuda
