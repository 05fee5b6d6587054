#include "tests/bench/attention/flashinfer_params.cuh"
#include "tests/bench/attention/flashinfer_tiles.cuh"

#include <flashinfer/attention/scheduler.cuh>

namespace troupe::bench {

extern template cudaError_t launch_tiles<16>(tile_params, __nv_bfloat16*, float*, cudaStream_t);
extern template cudaError_t launch_tiles<64>(tile_params, __nv_bfloat16*, float*, cudaStream_t);
extern template cudaError_t launch_tiles<128>(tile_params, __nv_bfloat16*, float*, cudaStream_t);

namespace {

class tiles_peer final : public flashinfer_peer {
public:
  std::string_view name() const override { return "FlashInfer FA2"; }

protected:
  bool takes(const attention_load&) const override { return true; }

  int plan_kernel(engine::cuda::stream_ref on) override {
    const auto heads = static_cast<std::uint32_t>(load_.heads);
    const auto kv_heads = static_cast<std::uint32_t>(load_.kv_heads);
    const auto dim = static_cast<std::uint32_t>(load_.dim);
    return flashinfer::PrefillPlan<std::int32_t>(
        partials_.data(), partials_.size(), numbers_.data(), staged_.data(), numbers_.size(), plan_,
        row_begin_.here(), page_begin_.here(), rows(), sequences(), heads, kv_heads, dim, dim,
        static_cast<std::uint32_t>(load_.block_size), false, sizeof(__nv_bfloat16), -1, -1, false,
        0, 0, false, on);
  }

  int launch(const attention_tensors& at, engine::cuda::stream_ref on) override {
    const tile_params p = planned_params(at);
    auto* const partial_rows = plan_.split_kv ? partial<__nv_bfloat16>(plan_.v_offset) : nullptr;
    auto* const sums = plan_.split_kv ? partial<float>(plan_.s_offset) : nullptr;
    switch (plan_.cta_tile_q) {
    case 16:
      return launch_tiles<16>(p, partial_rows, sums, on);
    case 64:
      return launch_tiles<64>(p, partial_rows, sums, on);
    case 128:
      return launch_tiles<128>(p, partial_rows, sums, on);
    default:
      return cudaErrorNotSupported;
    }
  }

private:
  tile_params planned_params(const attention_tensors& at) const {
    auto p = params_of<tile_params>(load_, at, tables(), scale());
    p.q_indptr = row_begin_.there();
    p.group_size =
        flashinfer::uint_fastdiv(static_cast<std::uint32_t>(load_.heads / load_.kv_heads));
    p.request_indices = planned(plan_.request_indices_offset);
    p.qo_tile_indices = planned(plan_.qo_tile_indices_offset);
    p.kv_tile_indices = planned(plan_.kv_tile_indices_offset);
    p.o_indptr = planned(plan_.o_indptr_offset);
    p.kv_chunk_size_ptr = planned(plan_.kv_chunk_size_ptr_offset);
    if (plan_.split_kv)
      p.merge_indptr = planned(plan_.merge_indptr_offset);
    p.padded_batch_size = static_cast<std::uint32_t>(plan_.padded_batch_size);
    p.max_total_num_rows = static_cast<std::uint32_t>(plan_.total_num_rows);
    return p;
  }

  flashinfer::PrefillPlanInfo plan_;
};

} // namespace

std::unique_ptr<attention_peer> make_flashinfer_tiles() { return std::make_unique<tiles_peer>(); }

} // namespace troupe::bench
