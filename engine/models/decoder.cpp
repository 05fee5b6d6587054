#include "engine/models/decoder.hpp"

#include "engine/models/blocks.hpp"

#include <fmt/core.h>

#include <array>
#include <utility>

namespace troupe::engine {

namespace {

struct decoder_layer {
  norm_block attention_norm;
  attention_block attention;
  norm_block mlp_norm;
  mlp_block mlp;

  static result<decoder_layer> load(const load_context& from, const decoder_options& options,
                                    std::int64_t index) {
    const std::string prefix = fmt::format("model.layers.{}.", index);
    const std::int64_t hidden = from.config.hidden_size;
    auto attention_norm = norm_block::load(from, prefix + "input_layernorm.weight", hidden);
    if (!attention_norm)
      return fail(attention_norm.error());
    auto attention =
        attention_block::load(from, {.prefix = prefix + "self_attn.", .qk_norm = options.qk_norm});
    if (!attention)
      return fail(attention.error());
    auto mlp_norm = norm_block::load(from, prefix + "post_attention_layernorm.weight", hidden);
    if (!mlp_norm)
      return fail(mlp_norm.error());
    auto mlp = mlp_block::load(from, prefix + "mlp.");
    if (!mlp)
      return fail(mlp.error());
    return decoder_layer{std::move(*attention_norm), std::move(*attention), std::move(*mlp_norm),
                         std::move(*mlp)};
  }

  /// What all layers share, and the cache of this one.
  struct inputs {
    const forward_batch& batch;
    const kernels::cpu::kv_cache& cache;
    const rope_tables& rope;
    const model_config& config;
  };

  void forward(kernels::cpu::member& m, const inputs& in, activations& work) const {
    const attention_block::inputs attending = begin(m, in, work);
    attention.attend(m, attending, in.batch.sequences, work);
    end(m, in.batch, work);
  }

  /// K and V of all rows, and all else of those that sample, which are the first rows behind it.
  void forward_sampling(kernels::cpu::member& m, const inputs& in, activations& work) const {
    const attention_block::inputs attending = begin(m, in, work);
    if (in.batch.sampling.empty())
      return;
    attention.attend(m, attending, in.batch.sampling, work);
    keep_rows(m, work.attended, in.batch.sampled_rows);
    keep_rows(m, work.residual, in.batch.sampled_rows);
    end(m, sampling_of(in.batch), work);
  }

  /// The batch when only its sampled rows are left.
  static forward_batch sampling_of(forward_batch batch) {
    batch.tokens = batch.tokens.first(batch.sampled_rows.size());
    batch.sequences = batch.sampling;
    return batch;
  }

private:
  attention_block::inputs begin(kernels::cpu::member& m, const inputs& in,
                                activations& work) const {
    const auto rows = static_cast<std::int64_t>(in.batch.tokens.size());
    const attention_block::inputs attending{
        .x = attention_norm.forward(m, work.residual, rows, work),
        .batch = &in.batch,
        .cache = &in.cache,
        .rope = &in.rope,
        .config = &in.config};
    attention.project(m, attending, work);
    return attending;
  }

  void end(kernels::cpu::member& m, const forward_batch& batch, activations& work) const {
    const auto rows = static_cast<std::int64_t>(batch.tokens.size());
    attention.add(m, batch, work);
    mlp.forward(m, mlp_norm.forward(m, work.residual, rows, work), batch, work);
  }
};

class decoder final : public model {
public:
  static result<std::unique_ptr<model>> load(const load_context& from,
                                             const decoder_options& options) {
    if (auto good = check_shards(from.config, from.shard.ranks); !good)
      return fail(good.error());
    auto made = std::make_unique<decoder>();
    made->config_ = config_of_shard(from.config, from.shard);
    auto vocabulary = vocabulary_block::load(from);
    if (!vocabulary)
      return fail(vocabulary.error());
    made->vocabulary_ = std::move(*vocabulary);
    for (std::int64_t i = 0; i < from.config.layers; ++i) {
      auto layer = decoder_layer::load(from, options, i);
      if (!layer)
        return fail(layer.error());
      made->layers_.push_back(std::move(*layer));
      if (from.progress)
        from.progress(static_cast<double>(i + 1) / static_cast<double>(from.config.layers));
    }
    auto last = norm_block::load(from, "model.norm.weight", from.config.hidden_size);
    if (!last)
      return fail(last.error());
    made->last_ = std::move(*last);
    // Some checkpoints carry what can be computed, or a copy of the tied head.
    constexpr std::array<std::string_view, 2> ignored{"rotary_emb.inv_freq", "lm_head.weight"};
    if (auto used = check_all_used(from, ignored); !used)
      return fail(used.error());
    made->rope_ = make_rope_tables(from.config.rope, from.config.head_dim, from.max_positions);
    return made;
  }

  const model_config& config() const noexcept override { return config_; }

  std::uint64_t weight_bytes() const noexcept override {
    std::uint64_t bytes = vocabulary_.head.bytes() + vocabulary_.table.storage.size();
    for (const decoder_layer& layer : layers_)
      bytes += layer.attention.qkv.bytes() + layer.attention.output.bytes() +
               layer.mlp.gate_up.bytes() + layer.mlp.down.bytes();
    return bytes;
  }

  void forward(kernels::cpu::member& m, const forward_batch& batch,
               activations& work) const override {
    const bool narrow = batch.sampling.size() == batch.sampled_rows.size() &&
                        batch.sampling.size() < batch.tokens.size();
    vocabulary_.embed(m, batch.tokens, work);
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const decoder_layer::inputs in{batch, batch.caches[i], rope_, config_};
      if (narrow && i + 1 == layers_.size())
        layers_[i].forward_sampling(m, in, work);
      else
        layers_[i].forward(m, in, work);
      if (batch.exchange != nullptr && batch.exchange->failed())
        return;
    }
    vocabulary_.logits(m, narrow ? decoder_layer::sampling_of(batch) : batch, last_, work);
  }

private:
  model_config config_;
  vocabulary_block vocabulary_;
  std::vector<decoder_layer> layers_;
  norm_block last_;
  rope_tables rope_;
};

} // namespace

result<std::unique_ptr<model>> load_decoder(const load_context& from,
                                            const decoder_options& options) {
  return decoder::load(from, options);
}

} // namespace troupe::engine
