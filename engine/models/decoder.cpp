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
    const auto rows = static_cast<std::int64_t>(batch.tokens.size());
    vocabulary_.embed(m, batch.tokens, work);
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const decoder_layer& layer = layers_[i];
      layer.attention.forward(m,
                              {.x = layer.attention_norm.forward(m, work.residual, rows, work),
                               .batch = &batch,
                               .cache = &batch.caches[i],
                               .rope = &rope_,
                               .config = &config_},
                              work);
      layer.mlp.forward(m, layer.mlp_norm.forward(m, work.residual, rows, work), batch, work);
      if (batch.exchange != nullptr && batch.exchange->failed())
        return;
    }
    vocabulary_.logits(m, batch, last_, work);
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
