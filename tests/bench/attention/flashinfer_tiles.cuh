#pragma once

#include <cuda_bf16.h>
#include <flashinfer/attention/default_prefill_params.cuh>
#include <flashinfer/attention/mask.cuh>
#include <flashinfer/attention/variants.cuh>
#include <flashinfer/pos_enc.cuh>

/// The kernel of FlashAttention 2 in one size of tiles; each is compiled in a file of its own.
namespace troupe::bench {

using tile_params =
    flashinfer::BatchPrefillPagedParams<__nv_bfloat16, __nv_bfloat16, __nv_bfloat16, std::int32_t>;
using tile_variant = flashinfer::DefaultAttention<false, false, false, false>;

template <std::uint32_t Rows>
cudaError_t launch_tiles(tile_params params, __nv_bfloat16* partial, float* sums,
                         cudaStream_t stream);

} // namespace troupe::bench

/// Makes launch_tiles() of so many rows, behind <flashinfer/attention/prefill.cuh>.
#define TROUPE_FLASHINFER_TILES(Rows)                                                              \
  template <>                                                                                      \
  cudaError_t troupe::bench::launch_tiles<Rows>(tile_params params, __nv_bfloat16 * partial,       \
                                                float* sums, cudaStream_t stream) {                \
    return flashinfer::BatchPrefillWithPagedKVCacheDispatched<                                     \
        true, Rows, 128, 128, flashinfer::PosEncodingMode::kNone, false,                           \
        flashinfer::MaskMode::kCausal, false, tile_variant, tile_params>(params, partial, sums,    \
                                                                         true, stream);            \
  }
