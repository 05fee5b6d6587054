#pragma once

#include "kernels/cpu/tensor.hpp"

#include <optional>
#include <string_view>

namespace troupe::engine {

/// The compute type that executor_options name: "auto" means `automatic`; nothing for a name that
/// is none.
[[nodiscard]] inline std::optional<kernels::dtype> dtype_of(std::string_view name,
                                                            kernels::dtype automatic) {
  if (name == "auto")
    return automatic;
  if (name == "float32" || name == "float")
    return kernels::dtype::f32;
  if (name == "bfloat16")
    return kernels::dtype::bf16;
  if (name == "float16" || name == "half")
    return kernels::dtype::f16;
  return std::nullopt;
}

/// The name of a compute type, as descriptions and errors say it.
[[nodiscard]] inline std::string_view name_of(kernels::dtype type) {
  switch (type) {
  case kernels::dtype::f32:
    return "float32";
  case kernels::dtype::bf16:
    return "bfloat16";
  case kernels::dtype::f16:
    return "float16";
  }
  return "?";
}

} // namespace troupe::engine
