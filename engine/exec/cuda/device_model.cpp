#include "engine/exec/cuda/device_model.hpp"
#include "engine/exec/cuda/chain.hpp"

#include "engine/models/rope.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

namespace troupe::engine::cuda {

namespace {

using kernels::dtype;

/// In what the families of this recipe differ.
struct family {
  std::string_view architecture;
  /// RMS norms over each head of q and k, before rope.
  bool qk_norm;
};

constexpr std::array<family, 3> families{{
    {"LlamaForCausalLM", false},
    {"MistralForCausalLM", false},
    {"Qwen3ForCausalLM", true},
}};

result<family> family_of(const model_config& config) {
  for (const family& one : families)
    if (one.architecture == config.architecture)
      return one;
  return fail(errc::unsupported, fmt::format("there is no recipe for '{}' on a GPU; there are: "
                                             "LlamaForCausalLM, MistralForCausalLM, "
                                             "Qwen3ForCausalLM",
                                             config.architecture));
}

result<void> check_shape(const model_config& config) {
  if (config.hidden_size > kernels::cuda::max_norm_cols)
    return fail(errc::unsupported, fmt::format("hidden_size {}: the norm's kernel takes up to {}",
                                               config.hidden_size, kernels::cuda::max_norm_cols));
  if (config.hidden_size % 8 != 0 || config.intermediate_size % 8 != 0 || config.head_dim % 8 != 0)
    return fail(errc::unsupported,
                fmt::format("hidden_size {}, intermediate_size {} and head_dim {} must be "
                            "multiples of 8 on a GPU",
                            config.hidden_size, config.intermediate_size, config.head_dim));
  return {};
}

} // namespace

result<device_model::layer> device_model::load_layer(const load_context& from,
                                                     weight_uploader& bring, std::int64_t index) {
  const model_config& c = from.config;
  const std::string at = fmt::format("model.layers.{}.", index);
  const std::string self = at + "self_attn.";
  const std::int64_t query = c.heads * c.head_dim;
  const std::int64_t kv = c.kv_heads * c.head_dim;
  const auto rules = family_of(c);
  layer made;
  chain all;
  all.take(made.attention_norm,
           [&] { return bring.vector(at + "input_layernorm.weight", c.hidden_size); });
  all.take(made.qkv, [&] {
    const std::array<matrix_part, 3> parts{{{self + "q_proj.weight", query},
                                            {self + "k_proj.weight", kv},
                                            {self + "v_proj.weight", kv}}};
    return bring.matrix(parts, c.hidden_size, shard_axis::rows);
  });
  if (rules && rules->qk_norm) {
    all.take(made.q_norm, [&] { return bring.vector(self + "q_norm.weight", c.head_dim); });
    all.take(made.k_norm, [&] { return bring.vector(self + "k_norm.weight", c.head_dim); });
  }
  all.take(made.output, [&] {
    const std::array<matrix_part, 1> parts{{{self + "o_proj.weight", c.hidden_size}}};
    return bring.matrix(parts, query, shard_axis::cols);
  });
  all.take(made.mlp_norm,
           [&] { return bring.vector(at + "post_attention_layernorm.weight", c.hidden_size); });
  all.take(made.gate_up, [&] {
    const std::array<matrix_part, 2> parts{{{at + "mlp.gate_proj.weight", c.intermediate_size},
                                            {at + "mlp.up_proj.weight", c.intermediate_size}}};
    return bring.matrix(parts, c.hidden_size, shard_axis::rows);
  });
  all.take(made.down, [&] {
    const std::array<matrix_part, 1> parts{{{at + "mlp.down_proj.weight", c.hidden_size}}};
    return bring.matrix(parts, c.intermediate_size, shard_axis::cols);
  });
  if (!all.state())
    return fail(all.state().error());
  return made;
}

result<device_model> device_model::plan(const model_config& whole, const model_shard& shard,
                                        dtype compute, bool deterministic) {
  if (auto split = check_shards(whole, shard.ranks); !split)
    return fail(split.error());
  device_model made;
  made.config_ = config_of_shard(whole, shard);
  made.shard_ = shard;
  made.compute_ = compute;
  made.ordered_ = deterministic || compute == dtype::f32;
  if (auto known = family_of(whole); !known)
    return fail(known.error());
  if (auto good = check_shape(made.config_); !good)
    return fail(good.error());
  return made;
}

std::uint64_t device_model::weight_bytes(std::int64_t positions) const {
  const model_config& c = config_;
  const std::uint64_t size = kernels::size_of(compute_);
  const auto own_rows = static_cast<std::uint64_t>(range_of_shard(c.vocab_size, shard_).size());
  const std::uint64_t head =
      c.tie_word_embeddings ? 0 : own_rows * static_cast<std::uint64_t>(c.hidden_size);
  const auto rules = family_of(c);
  const std::int64_t norms = (2 * c.layers + 1) * c.hidden_size +
                             (rules && rules->qk_norm ? 2 * c.layers * c.head_dim : 0);
  // cos and sin of half a head each.
  const std::int64_t rope = positions * c.head_dim;
  return (c.layer_elements() + c.table_elements() + head) * size +
         static_cast<std::uint64_t>(norms + rope) * sizeof(float);
}

result<device_model> device_model::load(const load_context& from, weight_uploader& bring,
                                        bool deterministic, rank_link* link) {
  const model_config& c = from.config;
  auto planned = plan(c, from.shard, from.compute, deterministic);
  if (!planned)
    return planned;
  device_model made = std::move(*planned);
  made.link_ = link;
  chain all;
  all.take(made.table_, [&] {
    const std::array<matrix_part, 1> parts{{{"model.embed_tokens.weight", c.vocab_size}}};
    return bring.matrix(parts, c.hidden_size);
  });
  if (!c.tie_word_embeddings)
    all.take(made.head_, [&] {
      const std::array<matrix_part, 1> parts{{{"lm_head.weight", c.vocab_size}}};
      return bring.matrix(parts, c.hidden_size, shard_axis::rows);
    });
  for (std::int64_t i = 0; i < c.layers && all.state(); ++i) {
    auto one = load_layer(from, bring, i);
    if (!one)
      return fail(one.error());
    made.layers_.push_back(std::move(*one));
    if (from.progress)
      from.progress(static_cast<double>(i + 1) / static_cast<double>(c.layers));
  }
  all.take(made.last_norm_, [&] { return bring.vector("model.norm.weight", c.hidden_size); });
  all.then([&] {
    constexpr std::array<std::string_view, 2> ignored{"rotary_emb.inv_freq", "lm_head.weight"};
    return check_all_used(from, ignored);
  });
  const rope_tables rope = make_rope_tables(c.rope, c.head_dim, from.max_positions);
  all.take(made.cos_, [&] { return bring.floats(rope.cos, "rope tables"); });
  all.take(made.sin_, [&] { return bring.floats(rope.sin, "rope tables"); });
  all.then([&] { return bring.finish(); });
  if (!all.state())
    return fail(all.state().error());
  return made;
}

result<void> device_model::norm(const device_buffer& weight, const device_buffer* delta,
                                std::int64_t rows, const std::int32_t* pick, stream_ref on) {
  return kernels::cuda::rms_norm({.residual = residual_.as<float>(),
                                  .residual_stride = config_.hidden_size,
                                  .delta = delta == nullptr ? nullptr : delta->data(),
                                  .delta_stride = config_.hidden_size,
                                  .weight = weight.as<float>(),
                                  .eps = static_cast<float>(config_.rms_norm_eps),
                                  .pick = pick,
                                  .rows = rows,
                                  .cols = config_.hidden_size,
                                  .type = compute_,
                                  .out = normed_.data(),
                                  .out_stride = config_.hidden_size},
                                 on);
}

kernels::cuda::normed_source device_model::residual_normed_by(const device_buffer& weight) const {
  return {.residual = residual_.as<float>(),
          .stride = config_.hidden_size,
          .weight = weight.as<float>(),
          .eps = static_cast<float>(config_.rms_norm_eps)};
}

kernels::cuda::attention_args
device_model::attention_of(kernels::cuda::attention_args batch,
                           const kernels::cuda::kv_cache& cache) const {
  const std::int64_t query = config_.heads * config_.head_dim;
  batch.q = query_.data();
  batch.q_stride = query;
  batch.heads = static_cast<std::int32_t>(config_.heads);
  batch.cache = cache;
  batch.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config_.head_dim)));
  batch.out = attended_.data();
  batch.out_stride = query;
  return batch;
}

kernels::cuda::rope_store_args
device_model::rope_of(const layer& of, const kernels::cuda::attention_args& attention) const {
  return {.qkv = qkv_.data(),
          .qkv_stride = (attention.heads + 2 * attention.cache.kv_heads) * attention.cache.dim,
          .heads = attention.heads,
          .cache = attention.cache,
          .batch = attention.batch,
          .rows = attention.rows,
          .q_norm = of.q_norm.as<float>(),
          .k_norm = of.k_norm.as<float>(),
          .eps = static_cast<float>(config_.rms_norm_eps),
          .cos = cos_.as<float>(),
          .sin = sin_.as<float>(),
          .q = query_.data(),
          .q_stride = attention.q_stride};
}

bool device_model::turns_prompts(const layer& of, std::int64_t rows,
                                 const kernels::cuda::attention_args& attention) const noexcept {
  // Where heads are normed it takes longer than rope_store().
  return of.q_norm.data() == nullptr && attention.prefill_items > 0 &&
         rows >= kernels::cuda::shortcuts_taken().rope_in_prompts &&
         kernels::cuda::attends_by_warpgroups(attention);
}

result<void> device_model::attend(const layer& of, const forward_batch& batch,
                                  const kernels::cuda::kv_cache& cache, stream_ref on) {
  kernels::cuda::attention_args attention = attention_of(batch.attention, cache);
  attention.rows = batch.rows;
  attention.batch = batch.batch;
  chain all;
  if (batch.turned > 0) {
    all.then([&] {
      return kernels::cuda::turned_attention(attention, rope_of(of, attention), batch.turned, on);
    });
  } else {
    kernels::cuda::rope_store_args rope = rope_of(of, attention);
    if (turns_prompts(of, batch.rows, attention)) {
      rope.query_begin = batch.decodes_begin;
      rope.query_end = batch.decodes_end;
      attention.raw = kernels::cuda::raw_queries_of(rope);
    }
    all.then([&] { return kernels::cuda::rope_store(rope, on); });
    all.then([&] { return kernels::cuda::attention(attention, on); });
  }
  return all.state();
}

result<void> device_model::put_out(const layer& of, const layer_norms& norms, std::int64_t rows,
                                   stream_ref on) {
  product output = products_of(of, rows)[1];
  output.begins = norms.split_mlp ? &of.mlp_norm : nullptr;
  if (auto made = multiply(output, rows, on); !made)
    return made;
  return add_ranks(rows, on);
}

result<void> device_model::silu(std::int64_t rows, stream_ref on) {
  return kernels::cuda::silu_mul({.gate_up = gate_up_.data(),
                                  .stride = 2 * config_.intermediate_size,
                                  .out = gated_.data(),
                                  .out_stride = config_.intermediate_size,
                                  .type = compute_,
                                  .rows = rows,
                                  .cols = config_.intermediate_size},
                                 on);
}

result<void> device_model::project(const layer& of, const layer_norms& norms, std::int64_t rows,
                                   stream_ref on) {
  product qkv = qkv_product(of);
  if (norms_in_products(rows))
    return kernels::cuda::streamed_normed_matmul(kernels::cuda::plain(padded_args_of(qkv, rows)),
                                                 residual_normed_by(of.attention_norm), on);
  qkv.ends = norms.split_attention;
  chain all;
  if (!norms.split_attention)
    all.then([&] { return norm(of.attention_norm, norms.delta, rows, nullptr, on); });
  all.then([&] { return multiply(qkv, rows, on); });
  return all.state();
}

result<void> device_model::gate(const layer& of, const layer_norms& norms, std::int64_t rows,
                                stream_ref on) {
  product both = products_of(of, rows)[2];
  both.ends = norms.split_mlp;
  auto args = kernels::cuda::plain(padded_args_of(both, rows));
  args.out = gated_.data();
  args.n = args.ldo = config_.intermediate_size;
  if (norms_in_products(rows))
    return kernels::cuda::streamed_normed_gated_matmul(args, residual_normed_by(of.mlp_norm), on);
  chain all;
  if (!norms.split_mlp)
    all.then([&] { return norm(of.mlp_norm, norms.delta, rows, nullptr, on); });
  auto* const at_once = !ordered_ && kernels::cuda::shortcuts_taken().gate_in_product
                            ? library_.gated(padded_args_of(both, rows))
                            : nullptr;
  if (at_once != nullptr) {
    all.then([&] { return at_once(args, on); });
    return all.state();
  }
  all.then([&] { return multiply(both, rows, on); });
  all.then([&] { return silu(rows, on); });
  return all.state();
}

result<void> device_model::feed(const layer& of, const layer_norms& norms, std::int64_t rows,
                                stream_ref on) {
  product down = products_of(of, rows)[3];
  down.begins = norms.next;
  chain all;
  all.then([&] { return gate(of, norms, rows, on); });
  all.then([&] { return multiply(down, rows, on); });
  all.then([&] { return add_ranks(rows, on); });
  return all.state();
}

result<void> device_model::run_layer(std::size_t index, const forward_batch& batch,
                                     const kernels::cuda::kv_cache& cache, layer_norms norms,
                                     stream_ref on) {
  const layer& of = layers_[index];
  // The last layer may norm by itself.
  const std::size_t behind = index + (narrows(batch) ? 2 : 1);
  if (norms.split_attention && behind < layers_.size())
    norms.next = &layers_[index + 1].attention_norm;
  layer_norms first = norms;
  if (index == 0)
    first = {};
  chain all;
  all.then([&] { return project(of, first, batch.rows, on); });
  all.then([&] { return attend(of, batch, cache, on); });
  all.then([&] { return put_out(of, norms, batch.rows, on); });
  all.then([&] { return feed(of, norms, batch.rows, on); });
  return all.state();
}

result<void> device_model::forward(const forward_batch& batch,
                                   const std::vector<kernels::cuda::kv_cache>& caches,
                                   stream_ref on) {
  chain all;
  all.then([&] {
    return kernels::cuda::embed({.table = table_.data(),
                                 .type = compute_,
                                 .batch = batch.batch,
                                 .sampled = batch.sampled,
                                 .out = residual_.as<float>(),
                                 .out_stride = config_.hidden_size,
                                 .rows = batch.rows,
                                 .cols = config_.hidden_size},
                                on);
  });
  const bool narrow = narrows(batch);
  const std::size_t whole = layers_.size() - (narrow ? 1 : 0);
  const layer_norms norms = norms_of(batch.rows);
  for (std::size_t i = 0; i < whole; ++i)
    all.then([&] { return run_layer(i, batch, caches[i], norms, on); });
  if (narrow)
    all.then([&] { return run_last_layer(batch, caches.back(), on); });
  if (batch.picked == 0)
    return all.state();
  const device_buffer* const delta =
      sums_in_products(narrow ? batch.picked : batch.rows) ? nullptr : &delta_;
  all.then(
      [&] { return norm(last_norm_, delta, batch.picked, narrow ? nullptr : batch.pick, on); });
  all.then([&] { return make_logits(batch.picked, !batch.logits, on); });
  return all.state();
}

} // namespace troupe::engine::cuda
