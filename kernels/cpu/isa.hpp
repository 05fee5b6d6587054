#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace troupe::kernels::cpu {

/// The instruction-set paths, slowest first. Results of one path are the same bits on every machine
/// that has it; two paths differ in rounding, so the path is part of a replica's numerics.
enum class isa : std::uint8_t { scalar, avx2, avx512, avx512_bf16 };

/// "scalar", "avx2", "avx512" or "avx512_bf16".
[[nodiscard]] std::string_view to_string(isa path) noexcept;

/// Whether this machine (and this build) can run `path`.
[[nodiscard]] bool supported(isa path) noexcept;

/// The fastest path that is supported here.
[[nodiscard]] isa best_isa() noexcept;

struct kernel_table;

/// The inner kernels of `path`. @pre supported(path)
[[nodiscard]] const kernel_table& select(isa path) noexcept;

} // namespace troupe::kernels::cpu
