#include "tests/bench/attention/flashinfer_peer.hpp"

#include <flashinfer/attention/hopper/default_params.cuh>
#include <flashinfer/attention/hopper/prefill_sm90.cuh>
#include <flashinfer/attention/hopper/variants.cuh>
#include <flashinfer/attention/scheduler.cuh>

#include <algorithm>

namespace troupe::bench {

namespace {

using number = cutlass::bfloat16_t;
using params = flashinfer::BatchPrefillPagedParams<number, number, number, std::int32_t>;

class hopper_peer final : public flashinfer_peer {
public:
  std::string_view name() const override { return "FlashInfer FA3"; }

protected:
  bool takes(const attention_load& load) const override {
    return std::ranges::any_of(load.sequences, [](const auto& one) { return one.rows > 1; });
  }

  int plan_kernel(engine::cuda::stream_ref on) override {
    const auto dim = static_cast<std::uint32_t>(load_.dim);
    return flashinfer::PrefillSM90Plan<std::int32_t>(
        partials_.data(), partials_.size(), numbers_.data(), staged_.data(), numbers_.size(), plan_,
        row_begin_.here(), page_begin_.here(), positions_.here(), rows(), sequences(),
        static_cast<std::uint32_t>(load_.heads), static_cast<std::uint32_t>(load_.kv_heads), dim,
        dim, static_cast<std::uint32_t>(load_.block_size), true, false, sizeof(number), on);
  }

  int launch(const attention_tensors& at, engine::cuda::stream_ref on) override {
    // Loads of more than 4,096 tiles a head would take a kernel that is not compiled.
    if (plan_.same_schedule_for_all_heads)
      return cudaErrorNotSupported;
    params p = params_of(at);
    return flashinfer::BatchPrefillWithPagedKVCacheDispatched<
        128, 128, flashinfer::MaskMode::kCausal, false, false, flashinfer::StandardAttention>(
        p, true, on);
  }

private:
  params params_of(const attention_tensors& at) const {
    params p{};
    p.q_ptr = static_cast<number*>(at.q);
    p.k_ptr = static_cast<number*>(at.k);
    p.v_ptr = static_cast<number*>(at.v);
    p.o_ptr = static_cast<number*>(at.out);
    p.additional_params.sm_scale = scale();
    p.q_stride_n = p.o_stride_n = std::int64_t{load_.heads} * load_.dim;
    p.q_stride_h = p.o_stride_h = load_.dim;
    p.k_stride_n = p.v_stride_n = load_.dim;
    p.k_stride_h = p.v_stride_h = std::int64_t{load_.block_size} * load_.dim;
    p.k_page_stride = p.v_page_stride = load_.kv_heads * p.k_stride_h;
    p.nnz_qo = rows();
    p.num_qo_heads = load_.heads;
    p.num_kv_heads = load_.kv_heads;
    p.group_size = load_.heads / load_.kv_heads;
    p.page_size = load_.block_size;
    p.window_left = -1;
    p.causal = true;
    p.qo_tile_indices = planned(plan_.qo_tile_indices_offset);
    p.qo_indptr = planned(plan_.qo_indptr_offset);
    p.kv_indptr = planned(plan_.kv_indptr_offset);
    p.qo_lens = planned(plan_.qo_len_offset);
    p.kv_lens = planned(plan_.kv_len_offset);
    p.head_indices = planned(plan_.head_indices_offset);
    p.work_indptr = planned(plan_.work_indptr_offset);
    p.batch_indices = planned(plan_.batch_indices_offset);
    p.kv_indices = pages_.there();
    return p;
  }

  flashinfer::PrefillPlanSM90Info plan_;
};

} // namespace

std::unique_ptr<attention_peer> make_flashinfer_hopper() { return std::make_unique<hopper_peer>(); }

} // namespace troupe::bench
