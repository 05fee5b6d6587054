// The last layer of a pass in which few rows sample: nobody reads what it makes of the others but
// their K and V, so all else is made of the rows that sample alone. Of a prompt of thousands of
// rows that is nearly a whole layer less, to the same results.
#include "engine/exec/cuda/chain.hpp"
#include "engine/exec/cuda/device_model.hpp"

#include <algorithm>

namespace troupe::engine::cuda {

using kernels::dtype;

bool device_model::narrows(const forward_batch& batch) const noexcept {
  if (!kernels::cuda::shortcuts_taken().narrow_last || batch.picked == batch.rows ||
      batch.sampling.rows != batch.picked)
    return false;
  // Rows are padded, and fewer take less time only where they are far fewer.
  return 2 * padded(std::max<std::int64_t>(batch.picked, 1), limits_.rows) <=
         padded(batch.rows, limits_.rows);
}

device_model::product device_model::query_product(const layer& of, const device_buffer& a) const {
  return {&a, &of.qkv, &qkv_, config_.heads * config_.head_dim, config_.hidden_size, compute_};
}

device_model::product device_model::kv_product(const layer& of) const {
  return {.a = &normed_,
          .w = &of.qkv,
          .out = &qkv_,
          .n = 2 * config_.kv_heads * config_.head_dim,
          .k = config_.hidden_size,
          .out_type = compute_,
          .first_row = config_.heads * config_.head_dim};
}

result<void> device_model::gather_residual(const forward_batch& batch, stream_ref on) {
  const kernels::cuda::pick_rows_args out{.from = residual_.data(),
                                          .from_stride = config_.hidden_size,
                                          .pick = batch.pick,
                                          .to = logits_.data(),
                                          .to_stride = config_.hidden_size,
                                          .type = dtype::f32,
                                          .rows = batch.picked,
                                          .cols = config_.hidden_size};
  kernels::cuda::pick_rows_args back = out;
  back.from = out.to;
  back.to = residual_.data();
  back.pick = nullptr;
  if (auto picked = kernels::cuda::pick_rows(out, on); !picked)
    return picked;
  return kernels::cuda::pick_rows(back, on);
}

result<void> device_model::query_picked(const layer& of, const forward_batch& batch,
                                        const kernels::cuda::kv_cache& cache, stream_ref on) {
  auto attention = attention_of(batch.sampling, cache);
  attention.cache.kv_heads = 0;
  chain all;
  all.then([&] {
    return kernels::cuda::pick_rows({.from = normed_.data(),
                                     .from_stride = config_.hidden_size,
                                     .pick = batch.pick,
                                     .to = delta_.data(),
                                     .to_stride = config_.hidden_size,
                                     .type = compute_,
                                     .rows = batch.picked,
                                     .cols = config_.hidden_size},
                                    on);
  });
  all.then([&] { return multiply(query_product(of, delta_), batch.picked, on); });
  all.then([&] { return kernels::cuda::rope_store(rope_of(of, attention), on); });
  return all.state();
}

result<void> device_model::run_last_layer(const forward_batch& batch,
                                          const kernels::cuda::kv_cache& cache, stream_ref on) {
  const layer& of = layers_.back();
  const std::int64_t picked = batch.picked;
  const bool first = layers_.size() == 1;
  const device_buffer* const before = first || sums_in_products(batch.rows) ? nullptr : &delta_;
  auto every = attention_of(batch.attention, cache);
  every.heads = 0;
  every.rows = batch.rows;
  every.batch = batch.batch;
  chain all;
  all.then([&] { return norm(of.attention_norm, before, batch.rows, nullptr, on); });
  all.then([&] { return multiply(kv_product(of), batch.rows, on); });
  all.then([&] { return kernels::cuda::rope_store(rope_of(of, every), on); });
  if (picked == 0)
    return all.state();
  const layer_norms norms = norms_of(picked);
  all.then([&] { return gather_residual(batch, on); });
  all.then([&] { return query_picked(of, batch, cache, on); });
  all.then([&] { return kernels::cuda::attention(attention_of(batch.sampling, cache), on); });
  all.then([&] { return put_out(of, norms, picked, on); });
  all.then([&] { return feed(of, norms, picked, on); });
  return all.state();
}

} // namespace troupe::engine::cuda
