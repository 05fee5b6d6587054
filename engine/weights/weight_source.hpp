#pragma once

#include "kernels/cpu/tensor.hpp"
#include "troupe/base/error.hpp"

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::engine {

/// One tensor of a checkpoint, borrowed or owned.
struct weight_tensor {
  /// Valid while both this object and its source live.
  kernels::tensor_view view;
  /// The memory behind `view` when the source had to make the values; else empty.
  kernels::buffer storage;
};

/// What is asked of a source: a name as in the checkpoint and the shape that the model needs.
struct weight_request {
  std::string name;
  /// One or two dimensions.
  std::vector<std::int64_t> shape;
};

/// Where a model's weights come from, by tensor name. Used by one thread at a time.
class weight_source {
public:
  virtual ~weight_source() = default;

  /// The tensor of that name.
  /// @errors not_found: no such tensor; bad_shape: it has another shape; unsupported: it is neither
  ///         f32, f16 nor bf16; out_of_memory
  [[nodiscard]] virtual result<weight_tensor> get(const weight_request& wanted) = 0;

  /// Copies `part` of the values of a tensor that get() answered with to `to`; from a file without
  /// mapping its pages. Any thread, while get() is not called.
  /// @errors io_failure
  [[nodiscard]] virtual result<void> copy(std::span<const std::byte> part, std::byte* to) const;

  /// Says that the values of `tensor` have been copied and its view is used no more: the source may
  /// drop what caches them.
  virtual void done_with(const weight_tensor& tensor) noexcept = 0;

  /// Says that no further tensor is asked for, and lets go of every file of which no view is used.
  /// get(), copy() and identity() come before it.
  /// @errors io_failure: a file was changed while it was read, so that nothing of it is to be used
  [[nodiscard]] virtual result<void> settle();

  /// Whether the views that are still used have shown the values of their files up to now. Whoever
  /// computed with them asks afterwards. Any thread. Cost: below a microsecond a file.
  /// @errors io_failure: a file was changed or cut; the note says which, and the mend
  [[nodiscard]] virtual result<void> intact() const;

  /// Names of tensors that nobody has asked for, sorted.
  [[nodiscard]] virtual std::vector<std::string> unused() const = 0;

  /// A hash that tells this source's values from others'. Cheap: it samples a checkpoint.
  [[nodiscard]] virtual std::uint64_t identity() const = 0;
};

/// Opens the checkpoint in a Hugging Face folder: model.safetensors, or the shards that
/// model.safetensors.index.json names. Every offset, length, shape and name is checked here.
/// @errors not_found: there is neither file, or a shard is missing; corrupt_data: the note names
///         file, tensor and what is wrong; io_failure
[[nodiscard]] result<std::unique_ptr<weight_source>>
open_safetensors(const std::filesystem::path& model_dir);

/// What random weights are made from.
struct dummy_options {
  /// The same seed and name give the same values.
  std::uint64_t seed = 0;
  /// The type that is handed out.
  kernels::dtype type = kernels::dtype::bf16;
};

/// Makes random weights of whatever shape is asked for: matrices near N(0, 1 / sqrt(columns)),
/// vectors 1. Values are made when asked for and owned by the answer, so that packing one matrix
/// after the other holds one of them at a time.
[[nodiscard]] std::unique_ptr<weight_source> make_dummy_weights(dummy_options options);

} // namespace troupe::engine
