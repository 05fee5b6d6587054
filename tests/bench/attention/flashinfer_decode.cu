#include "tests/bench/attention/flashinfer_params.cuh"

#include <flashinfer/attention/decode.cuh>
#include <flashinfer/attention/default_decode_params.cuh>
#include <flashinfer/attention/scheduler.cuh>
#include <flashinfer/attention/variants.cuh>

#include <algorithm>

namespace troupe::bench {

namespace {

using number = __nv_bfloat16;
using params = flashinfer::BatchDecodeParams<number, number, number, std::int32_t>;
using variant = flashinfer::DefaultAttention<false, false, false, false>;
constexpr auto plain = flashinfer::PosEncodingMode::kNone;
constexpr std::uint32_t dim = 128;

class decode_peer final : public flashinfer_peer {
public:
  std::string_view name() const override { return "FlashInfer decode"; }

protected:
  bool takes(const attention_load& load) const override {
    return std::ranges::all_of(load.sequences, [](const auto& one) { return one.rows == 1; });
  }

  int plan_kernel(engine::cuda::stream_ref on) override {
    const auto group = static_cast<std::uint32_t>(load_.heads / load_.kv_heads);
    DISPATCH_GQA_GROUP_SIZE(group, Group, {
      return flashinfer::DecodePlan<dim, plain, variant, params>(
          partials_.data(), partials_.size(), numbers_.data(), staged_.data(), numbers_.size(),
          plan_, page_begin_.here(), sequences(), static_cast<std::uint32_t>(load_.heads),
          static_cast<std::uint32_t>(load_.block_size), false, on,
          flashinfer::BatchDecodeWithPagedKVCacheWorkEstimationDispatched<Group, dim, plain,
                                                                          variant, params>);
    });
    return cudaErrorNotSupported;
  }

  int launch(const attention_tensors& at, engine::cuda::stream_ref on) override {
    auto p = params_of<params>(load_, at, tables(), scale());
    p.request_indices = planned(plan_.request_indices_offset);
    p.kv_tile_indices = planned(plan_.kv_tile_indices_offset);
    p.o_indptr = planned(plan_.o_indptr_offset);
    p.kv_chunk_size_ptr = planned(plan_.kv_chunk_size_ptr_offset);
    p.padded_batch_size = static_cast<std::uint32_t>(plan_.padded_batch_size);
    return flashinfer::BatchDecodeWithPagedKVCacheDispatched<dim, plain, variant>(
        p, plan_.split_kv ? partial<number>(plan_.v_offset) : nullptr,
        plan_.split_kv ? partial<float>(plan_.s_offset) : nullptr, true, on);
  }

private:
  flashinfer::DecodePlanInfo plan_;
};

} // namespace

std::unique_ptr<attention_peer> make_flashinfer_decode() { return std::make_unique<decode_peer>(); }

} // namespace troupe::bench
