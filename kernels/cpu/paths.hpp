#pragma once

#include "kernels/cpu/kernel_table.hpp"

/// The tables of the instruction-set paths, one per file: a new path is one file, one row here and
/// one in isa.cpp.
namespace troupe::kernels::cpu {

extern const kernel_table scalar_kernels;
extern const kernel_table avx2_kernels;
extern const kernel_table avx512_kernels;
extern const kernel_table avx512_bf16_kernels;

} // namespace troupe::kernels::cpu
