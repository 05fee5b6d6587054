#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "config/sink.hpp"
#include "config/triton_draft.hpp"
#include "troupe/config/backend_needs.hpp"

namespace troupe::config {

/// A tensor that a backend reads or writes; a dimension is a size, or -1 for any.
struct backend_tensor {
  std::string_view name;
  inference::DataType type = inference::TYPE_INVALID;
  std::span<const std::int64_t> dims;
  bool optional = true;
};

/// What a backend needs: a row of the table of those that come with the program, or the answer of
/// a library.
struct backend_row {
  std::string_view name;
  std::span<const backend_tensor> inputs;
  std::span<const backend_tensor> outputs;
  /// The largest batch that it takes, and what it gets where nobody said; empty: any, and 0.
  std::optional<std::uint32_t> max_batch_size;
  std::optional<bool> decoupled;
  /// Of the program: it reads and writes these tensors and no others.
  bool built_in = false;
};

/// The row called `name`, or null: then the name is that of a backend of people's own.
[[nodiscard]] const backend_row* find_backend(std::string_view name) noexcept;

/// Fills what nobody wrote with what the backend needs: tensors, max_batch_size 0, the decoupled
/// policy. What was written stays; where the backend cannot honour it, that is an error.
void complete_for_backend(triton_draft& draft, const backend_row& backend, diagnostic_sink& sink);
/// The same for a library that stands alone.
void complete_for_library(triton_draft& draft, const backend_needs& needs, diagnostic_sink& sink);

/// Fills the rest with Triton's defaults: version policy, transaction policy, one instance group.
/// `instances` and who said it go into that group; `engine`: the engine serves the model.
void complete_defaults(triton_draft& draft, bool engine, std::uint32_t instances,
                       const origin& from);

/// Checks what holds for every backend, and names what is refused.
/// @pre draft.message.name is the directory's name or what was written
void check_draft(const triton_draft& draft, std::string_view directory, diagnostic_sink& sink);

/// What the engine does not do with a field, or refuses.
void check_for_engine(const triton_draft& draft, diagnostic_sink& sink);
/// What is not done for a library that stands alone.
void check_for_library(const triton_draft& draft, diagnostic_sink& sink);

} // namespace troupe::config
