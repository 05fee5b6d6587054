#pragma once

#include "kernels/cpu/tensor.hpp"

#include <optional>
#include <string_view>

namespace troupe::engine {

/// The compute type that executor_options name: "auto" means `automatic`; nothing for a name that
/// no executor computes in.
[[nodiscard]] inline std::optional<kernels::dtype> dtype_of(std::string_view name,
                                                            kernels::dtype automatic) {
  if (name == "auto")
    return automatic;
  if (name == "float32" || name == "float")
    return kernels::dtype::f32;
  if (name == "bfloat16")
    return kernels::dtype::bf16;
  return std::nullopt;
}

/// The name of a compute type, as descriptions and errors say it.
[[nodiscard]] inline std::string_view name_of(kernels::dtype type) {
  return type == kernels::dtype::f32 ? "float32" : "bfloat16";
}

} // namespace troupe::engine
