// Two passes at once: the answers' rows of a step and the prompts', each on its lane.
#include "engine/exec/cuda/device_model.hpp"

namespace troupe::engine::cuda {

// All that a pass writes lies in working memory of its own rows. What passes would share, they do
// without: cuBLASLt with its workspace, and the ranks. Attention's counter of items and its partial
// results belong to the answers, for prompts have no such items.

result<void> device_model::multiply_in_lane(const kernels::cuda::ordered_matmul_args& args,
                                            stream_ref on) {
  return kernels::cuda::takes_streamed(args) ? kernels::cuda::streamed_matmul(args, on)
                                             : kernels::cuda::wide_matmul(args, on);
}

result<void> device_model::gate_in_lane(const product& both, work_rows rows, stream_ref on) {
  const std::int64_t cols = config_.intermediate_size;
  auto args = kernels::cuda::plain(padded_args_of(both, rows));
  args.out = row_of(gated_, rows.first, cols, compute_);
  args.n = args.ldo = cols;
  return kernels::cuda::takes_streamed(args) ? kernels::cuda::streamed_gated_matmul(args, on)
                                             : kernels::cuda::wide_gated_matmul(args, on);
}

result<void> device_model::warm_lanes(std::int64_t answers, std::int64_t prompts,
                                      const lane_pair& on) {
  const std::int64_t behind = padded(answers, limits_.rows);
  const std::pair<work_rows, stream_ref> lanes[]{{{answers, 0, true}, on.answers().get()},
                                                 {{prompts, behind, true}, on.prompts().get()}};
  const layer& of = layers_.front();
  for (const auto& [rows, to] : lanes) {
    const std::vector<product> products = products_of(of, rows.count);
    for (const std::size_t i : {0, 1, 3})
      if (auto made = multiply(products[i], rows, to); !made)
        return made;
    if (auto made = gate(of, rows, to); !made)
      return made;
  }
  return on.wait_for_both();
}

bool device_model::fits_lanes(std::int64_t answers, std::int64_t prompts) const noexcept {
  return link_ == nullptr &&
         padded(answers, limits_.rows) + prompts <= limits_.rows + limits_.between_lanes;
}

lane_model device_model::in_lanes() const noexcept {
  const model_config& c = config_;
  const auto size = static_cast<double>(kernels::size_of(compute_));
  const auto layers = static_cast<double>(c.layers);
  const auto query = static_cast<double>(c.heads * c.head_dim);
  const auto kv = static_cast<double>(c.kv_heads * c.head_dim);
  const auto hidden = static_cast<double>(c.hidden_size);
  const auto elements = static_cast<double>(c.layer_elements());
  // Each is written once and read once; the residual by two norms and two products.
  const double passed =
      2 * size * (2 * hidden + 3 * query + 2 * kv + static_cast<double>(c.intermediate_size));
  return {.layers = layers,
          .weight_bytes = elements * size,
          .row_flops = 2 * elements,
          .row_bytes = layers * (passed + 24 * hidden),
          .position_bytes = layers * 2 * kv * size,
          .pair_flops = layers * 4 * query};
}

result<void> device_model::forward_in_lanes(forward_batch answers, forward_batch prompts,
                                            const std::vector<kernels::cuda::kv_cache>& caches,
                                            const lane_pair& on, stream_ref main) {
  answers.in_lane = prompts.in_lane = true;
  // Products write whole tiles: what stands behind the answers' rows is theirs too.
  prompts.first = padded(answers.rows, limits_.rows);
  if (auto forked = on.fork(main); !forked)
    return forked;
  const stream_ref lanes[]{on.answers().get(), on.prompts().get()};
  const forward_batch* const batches[]{&answers, &prompts};
  for (std::size_t i = 0; i < 2; ++i)
    if (auto begun = embed(*batches[i], lanes[i]); !begun)
      return begun;
  // Layer by layer, so that neither lane waits until the host has enqueued all of the other.
  for (std::size_t layer = 0; layer < layers_.size(); ++layer)
    for (std::size_t i = 0; i < 2; ++i)
      if (auto ran = run_layer(layer, *batches[i], caches[layer], lanes[i]); !ran)
        return ran;
  if (auto joined = on.join(main); !joined)
    return joined;
  if (answers.picked + prompts.picked == 0)
    return {};
  // A kernel that is not launched early stands between the lanes and those that are: it begins when
  // both have ended.
  if (auto begun = kernels::cuda::stall(0, main); !begun)
    return begun;
  if (auto normed = last_norm(answers, 0, main); !normed)
    return normed;
  if (auto normed = last_norm(prompts, answers.picked, main); !normed)
    return normed;
  return multiply(head_product(), {answers.picked + prompts.picked}, main);
}

} // namespace troupe::engine::cuda
