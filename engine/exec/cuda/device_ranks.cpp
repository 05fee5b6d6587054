// What a rank of several adds to the recipe: its part of the head, and the sums over all ranks.
#include "engine/exec/cuda/device_model.hpp"

#include <algorithm>

namespace troupe::engine::cuda {

using kernels::dtype;

std::int64_t device_model::part_cols() const noexcept {
  return (config_.vocab_size + shard_.ranks - 1) / shard_.ranks;
}

std::int64_t device_model::gathered_bytes(const device_limits& limits) const noexcept {
  if (shard_.whole())
    return 0;
  const std::int64_t logits = limits.picked * part_cols();
  const std::int64_t sums = ordered_ ? limits.rows * config_.hidden_size : 0;
  return std::max(logits, sums) * shard_.ranks * 4;
}

device_model::product device_model::head_product() const {
  if (link_ == nullptr)
    return {&normed_, &head(), &logits_, config_.vocab_size, config_.hidden_size, dtype::f32};
  const shard_range own = range_of_shard(config_.vocab_size, shard_);
  // A tied table is whole.
  return {.a = &normed_,
          .w = &head(),
          .out = &gathered_,
          .n = own.size(),
          .k = config_.hidden_size,
          .out_type = dtype::f32,
          .gathered = true,
          .ldo = part_cols(),
          .first_row = config_.tie_word_embeddings ? own.begin : 0};
}

device_model::product device_model::summed_product(const device_buffer& a, const device_buffer& w,
                                                   std::int64_t k, std::int64_t rows) const {
  if (sums_in_products(rows))
    return {.a = &a,
            .w = &w,
            .out = &residual_,
            .n = config_.hidden_size,
            .k = k,
            .out_type = dtype::f32,
            .add = true};
  const bool parts = link_ != nullptr && ordered_;
  return {.a = &a,
          .w = &w,
          .out = parts ? &gathered_ : &delta_,
          .n = config_.hidden_size,
          .k = k,
          .out_type = parts ? dtype::f32 : compute_,
          .gathered = parts};
}

result<void> device_model::add_ranks(std::int64_t rows, stream_ref on) {
  if (link_ == nullptr)
    return {};
  const std::int64_t count = rows * config_.hidden_size;
  if (!ordered_)
    return link_->sum(delta_.data(), count, compute_, on);
  if (auto all = link_->gather(gathered_.as<float>(), count, on); !all)
    return all;
  return kernels::cuda::join_parts({.parts = gathered_.as<float>(),
                                    .ranks = static_cast<std::int32_t>(shard_.ranks),
                                    .count = count,
                                    .out = delta_.data(),
                                    .type = compute_},
                                   on);
}

result<void> device_model::gather_logits(std::int64_t picked, stream_ref on) {
  if (link_ == nullptr)
    return {};
  if (auto all = link_->gather(gathered_.as<float>(), picked * part_cols(), on); !all)
    return all;
  return kernels::cuda::join_columns({.parts = gathered_.as<float>(),
                                      .ranks = static_cast<std::int32_t>(shard_.ranks),
                                      .rows = picked,
                                      .part_cols = part_cols(),
                                      .out = logits_.as<float>(),
                                      .cols = config_.vocab_size},
                                     on);
}

} // namespace troupe::engine::cuda
