#pragma once

#include <cstdint>

struct CUstream_st;

/// What all operations of kernels/cuda share: the stream that they are enqueued on, and what may be
/// left out.
namespace troupe::kernels::cuda {

/// A CUDA stream, borrowed; cudaStream_t without CUDA's headers.
using stream_ref = CUstream_st*;

/// What is done only to be quick, and may be left out to measure what it brings.
struct shortcuts {
  /// Kernels start while the one before them runs, and wait where they need its results.
  bool early_launch = true;
  /// Products read ahead before they wait for their inputs.
  bool read_ahead = true;
  /// How many bytes of a matrix at most, with the first loads into registers, which are made in any
  /// case: more would stand in the way of what the small kernels before the product read.
  std::int64_t ahead_bytes = 8 << 20U;
  /// All our kernels ask for the same split of an SM into L1 and shared memory, so that it need not
  /// run dry between them.
  bool one_carveout = true;
  /// Decode steps of ranks that add over NCCL are replayed as graphs too.
  bool graphs_of_ranks = true;
  /// One kernel for the product of gate and up and for silu_mul() behind it.
  bool gate_in_product = true;
  /// Up to how many rows skinny_matmul() is a candidate.
  std::int64_t skinny_rows = 2;
  /// Whether streamed_matmul() is a candidate.
  bool streamed = true;
  /// Whether halved_matmul() is a candidate.
  bool halved = true;
  /// Whether wide_matmul() is a candidate.
  bool wide = true;
  /// skinny_matmul()'s blocks are dealt out evenly to the SMs, however full these are.
  bool even_blocks = true;
  /// Attention of prompts by the products of warpgroups, where heads have 128 elements.
  bool warpgroups = true;
  /// turned_attention() for steps of decodes.
  bool rope_in_attention = true;
  /// K and V that decodes read once in a step leave L2 before all else.
  bool kv_leaves_first = true;
  /// Attention of prompts turns their q (raw_queries), in steps of so many rows or more: what a
  /// block turns first, all behind it waits for.
  std::int64_t rope_in_prompts = 2048;
  /// Products of many rows add to the residual themselves.
  bool sum_in_product = true;
  /// wide_matmul() adds a tile while it multiplies the next, where blocks take so many or more.
  std::int64_t kept_sums = 6;
  /// Products of very few rows norm them, and add to the residual.
  bool norm_in_product = true;
  /// Products of some hundred rows begin the norm of what they make, and the next ones end it.
  bool split_norms = true;
  /// The product that makes logits tells the greatest of them, where it is one of ours.
  bool head_leads = true;
  /// The last layer computes of rows that do not sample K and V alone.
  bool narrow_last = true;
  /// Products never tuned go through our kernels where those take them. For tests.
  bool own_untuned = false;
};

/// Those of this process. Benches change them, before they load a model.
[[nodiscard]] shortcuts& shortcuts_taken() noexcept;

} // namespace troupe::kernels::cuda
