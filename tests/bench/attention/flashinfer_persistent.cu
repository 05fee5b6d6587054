#include "tests/bench/attention/flashinfer_peer.hpp"

#include <cuda_bf16.h>
#include <flashinfer/attention/persistent.cuh>
#include <flashinfer/attention/scheduler.cuh>
#include <flashinfer/attention/variant_helper.cuh>

namespace troupe::bench {

namespace {

using number = __nv_bfloat16;

/// What the kernel reads, by the names that it has for it.
struct persistent_params {
  using DTypeQ = number;
  using DTypeKV = number;
  using DTypeO = number;
  using IdType = std::int32_t;

  number *q, *k, *v, *final_o, *partial_o;
  float *final_lse, *partial_lse;
  IdType *q_indptr, *kv_indptr, *partial_indptr, *kv_indices;
  IdType *q_len, *kv_len, *q_start, *kv_start, *kv_end, *kv_head_idx_arr;
  IdType *work_indptr, *len_kv_chunk;
  IdType *merge_indptr, *merge_o_indices, *num_packed_qo_len;
  std::uint32_t num_kv_heads;
  flashinfer::uint_fastdiv gqa_group_size, page_size;
  std::uint32_t q_stride_n, q_stride_h;
  std::uint32_t k_stride_page, k_stride_h, k_stride_n, v_stride_page, v_stride_h, v_stride_n;
  std::uint32_t k_sf_stride_page, k_sf_stride_h, k_sf_stride_n;
  std::uint32_t v_sf_stride_page, v_sf_stride_h, v_sf_stride_n;
  float sm_scale, logits_soft_cap, v_scale;
};

struct scaled_scores : flashinfer::AttentionVariantBase {
  static constexpr bool use_logits_soft_cap = false;
  float sm_scale_log2;

  __device__ __host__ scaled_scores(const persistent_params& params, std::uint32_t, std::uint8_t*)
      : sm_scale_log2{params.sm_scale * flashinfer::math::log2e} {}
};

class persistent_peer final : public flashinfer_peer {
public:
  std::string_view name() const override { return "FlashInfer persistent"; }

protected:
  bool takes(const attention_load&) const override { return true; }

  int plan_kernel(engine::cuda::stream_ref on) override {
    return flashinfer::TwoStageHolisticPlan<std::int32_t>(
        partials_.data(), partials_.size(), numbers_.data(), staged_.data(), numbers_.size(), plan_,
        row_begin_.here(), page_begin_.here(), positions_.here(), sequences(),
        static_cast<std::uint32_t>(load_.heads), static_cast<std::uint32_t>(load_.kv_heads),
        static_cast<std::uint32_t>(load_.dim), true, on);
  }

  int launch(const attention_tensors& at, engine::cuda::stream_ref on) override {
    return flashinfer::BatchPagedAttentionPersistent<
        128, 16, 128, 128, flashinfer::MaskMode::kCausal, true, scaled_scores, persistent_params>(
        params_of(at, 0), params_of(at, 1), static_cast<std::uint32_t>(plan_.num_blks_x),
        static_cast<std::uint32_t>(plan_.num_blks_y), on);
  }

private:
  /// @param task  0 those in tiles of 128 rows, 1 those in tiles of 16
  persistent_params params_of(const attention_tensors& at, int task) const {
    const auto& of = plan_.tasks[task];
    persistent_params p{};
    p.q = static_cast<number*>(at.q);
    p.k = static_cast<number*>(at.k);
    p.v = static_cast<number*>(at.v);
    p.final_o = static_cast<number*>(at.out);
    p.partial_o = partial<number>(plan_.partial_o_offset);
    p.partial_lse = partial<float>(plan_.partial_lse_offset);
    p.q_indptr = planned(of.q_indptr_offset);
    p.kv_indptr = planned(of.kv_indptr_offset);
    p.partial_indptr = planned(of.partial_indptr_offset);
    p.kv_indices = pages_.there();
    p.q_len = planned(of.q_len_offset);
    p.kv_len = planned(of.kv_len_offset);
    p.q_start = planned(of.q_start_offset);
    p.kv_start = planned(of.kv_start_offset);
    p.kv_end = planned(of.kv_end_offset);
    p.kv_head_idx_arr = planned(of.kv_head_idx_offset);
    p.work_indptr = planned(of.work_indptr_offset);
    p.len_kv_chunk = planned(plan_.len_kv_chunk_offset) + task;
    p.merge_indptr = planned(plan_.merge_indptr_offset);
    p.merge_o_indices = planned(plan_.merge_o_indices_offset);
    p.num_packed_qo_len = planned(plan_.num_qo_len_offset);
    p.num_kv_heads = static_cast<std::uint32_t>(load_.kv_heads);
    p.gqa_group_size =
        flashinfer::uint_fastdiv(static_cast<std::uint32_t>(load_.heads / load_.kv_heads));
    p.page_size = flashinfer::uint_fastdiv(static_cast<std::uint32_t>(load_.block_size));
    p.q_stride_n = static_cast<std::uint32_t>(load_.heads * load_.dim);
    p.q_stride_h = static_cast<std::uint32_t>(load_.dim);
    p.k_stride_n = p.v_stride_n = static_cast<std::uint32_t>(load_.dim);
    p.k_stride_h = p.v_stride_h = static_cast<std::uint32_t>(load_.block_size * load_.dim);
    p.k_stride_page = p.v_stride_page = p.num_kv_heads * p.k_stride_h;
    p.sm_scale = scale();
    p.v_scale = 1;
    return p;
  }

  flashinfer::HolisticPlanInfo<2> plan_{};
};

} // namespace

std::unique_ptr<attention_peer> make_flashinfer_persistent() {
  return std::make_unique<persistent_peer>();
}

} // namespace troupe::bench
