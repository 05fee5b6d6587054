#pragma once

#include "tests/bench/attention/flashinfer_peer.hpp"

#include <cuda_bf16.h>
#include <flashinfer/page.cuh>

namespace troupe::bench {

/// What FlashInfer's decodes and its FlashAttention 2 take alike, of a load that lies at `at`.
template <class Params>
Params params_of(const attention_load& load, const attention_tensors& at,
                 const flashinfer_peer::page_tables& tables, float scale) {
  using number = __nv_bfloat16;
  Params p;
  p.q = static_cast<number*>(at.q);
  p.o = static_cast<number*>(at.out);
  p.paged_kv = flashinfer::paged_kv_t<number, flashinfer_peer::index>{
      static_cast<std::uint32_t>(load.kv_heads),
      static_cast<std::uint32_t>(load.block_size),
      static_cast<std::uint32_t>(load.dim),
      static_cast<std::uint32_t>(load.sequences.size()),
      flashinfer::QKVLayout::kHND,
      static_cast<number*>(at.k),
      static_cast<number*>(at.v),
      tables.pages,
      tables.begins,
      tables.last_positions};
  p.num_qo_heads = static_cast<std::uint32_t>(load.heads);
  p.q_stride_n = load.heads * load.dim;
  p.q_stride_h = load.dim;
  p.window_left = -1;
  p.sm_scale = scale;
  p.rope_rcp_scale = p.rope_rcp_theta = 1;
  return p;
}

} // namespace troupe::bench
