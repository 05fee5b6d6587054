#include "engine/models/naive.hpp"

#include <catch2/catch.hpp>

#include <cmath>

namespace troupe::engine::test {

const std::vector<double>& naive_decoder::weight(const std::string& name, std::int64_t rows,
                                                 std::int64_t cols) {
  if (const auto at = weights_.find(name); at != weights_.end())
    return at->second;
  std::vector<std::int64_t> shape{rows, cols};
  if (cols == 0)
    shape.pop_back();
  const auto tensor = source_->get({name, shape});
  REQUIRE(tensor);
  std::vector<double>& values = weights_[name];
  for (std::int64_t i = 0; i < tensor->view.size(); ++i)
    values.push_back(kernels::load_as_f32(tensor->view.data, tensor->view.type, i));
  return values;
}

naive_decoder::row naive_decoder::product(const std::string& name, const row& x,
                                          std::int64_t rows) {
  const auto& w = weight(name, rows, static_cast<std::int64_t>(x.size()));
  row out(static_cast<std::size_t>(rows), 0.0);
  for (std::size_t n = 0; n < out.size(); ++n)
    for (std::size_t k = 0; k < x.size(); ++k)
      out[n] += w[n * x.size() + k] * x[k];
  return out;
}

naive_decoder::row naive_decoder::norm(const std::string& name, const row& x) {
  const auto& w = weight(name, static_cast<std::int64_t>(x.size()), 0);
  double squares = 0;
  for (const double v : x)
    squares += v * v;
  const double scale =
      1.0 / std::sqrt(squares / static_cast<double>(x.size()) + config_.rms_norm_eps);
  row out(x.size());
  for (std::size_t i = 0; i < x.size(); ++i)
    out[i] = x[i] * scale * w[i];
  return out;
}

void naive_decoder::norm_head(const std::string& name, row& x, std::size_t head) {
  const auto dim = static_cast<std::size_t>(config_.head_dim);
  const auto first = x.begin() + static_cast<std::ptrdiff_t>(head * dim);
  const row normed = norm(name, row(first, first + config_.head_dim));
  std::copy(normed.begin(), normed.end(), first);
}

void naive_decoder::turn(row& x, std::size_t head, std::int64_t position) {
  const auto dim = static_cast<std::size_t>(config_.head_dim);
  double* const v = x.data() + head * dim;
  for (std::size_t i = 0; i < dim / 2; ++i) {
    double frequency =
        1.0 / std::pow(config_.rope.theta, 2.0 * static_cast<double>(i) / static_cast<double>(dim));
    if (config_.rope.scaling == rope_scaling::linear)
      frequency /= config_.rope.factor;
    const double angle = static_cast<double>(position) * frequency;
    const double low = v[i];
    const double high = v[i + dim / 2];
    v[i] = low * std::cos(angle) - high * std::sin(angle);
    v[i + dim / 2] = high * std::cos(angle) + low * std::sin(angle);
  }
}

naive_decoder::row naive_decoder::attend(const row& q, const std::vector<row>& keys,
                                         const std::vector<row>& values) {
  const auto dim = static_cast<std::size_t>(config_.head_dim);
  const auto group = static_cast<std::size_t>(config_.heads / config_.kv_heads);
  row out(q.size(), 0.0);
  for (std::size_t head = 0; head < static_cast<std::size_t>(config_.heads); ++head) {
    const std::size_t kv = head / group * dim;
    row scores(keys.size(), 0.0);
    double total = 0;
    for (std::size_t p = 0; p < keys.size(); ++p) {
      for (std::size_t d = 0; d < dim; ++d)
        scores[p] += q[head * dim + d] * keys[p][kv + d];
      scores[p] = std::exp(scores[p] / std::sqrt(static_cast<double>(dim)));
      total += scores[p];
    }
    for (std::size_t p = 0; p < keys.size(); ++p)
      for (std::size_t d = 0; d < dim; ++d)
        out[head * dim + d] += scores[p] / total * values[p][kv + d];
  }
  return out;
}

void naive_decoder::layer(std::int64_t index, std::vector<row>& residual) {
  const std::string at = "model.layers." + std::to_string(index) + ".";
  const bool head_norms = config_.architecture == "Qwen3ForCausalLM";
  std::vector<row> keys;
  std::vector<row> values;
  for (std::size_t p = 0; p < residual.size(); ++p) {
    row& x = residual[p];
    const row normed = norm(at + "input_layernorm.weight", x);
    row q = product(at + "self_attn.q_proj.weight", normed, config_.heads * config_.head_dim);
    row k = product(at + "self_attn.k_proj.weight", normed, config_.kv_heads * config_.head_dim);
    values.push_back(
        product(at + "self_attn.v_proj.weight", normed, config_.kv_heads * config_.head_dim));
    for (std::size_t h = 0; h < static_cast<std::size_t>(config_.heads); ++h) {
      if (head_norms)
        norm_head(at + "self_attn.q_norm.weight", q, h);
      turn(q, h, static_cast<std::int64_t>(p));
    }
    for (std::size_t h = 0; h < static_cast<std::size_t>(config_.kv_heads); ++h) {
      if (head_norms)
        norm_head(at + "self_attn.k_norm.weight", k, h);
      turn(k, h, static_cast<std::int64_t>(p));
    }
    keys.push_back(std::move(k));
    const row mixed =
        product(at + "self_attn.o_proj.weight", attend(q, keys, values), config_.hidden_size);
    for (std::size_t i = 0; i < x.size(); ++i)
      x[i] += mixed[i];
    const row y = norm(at + "post_attention_layernorm.weight", x);
    row gate = product(at + "mlp.gate_proj.weight", y, config_.intermediate_size);
    const row up = product(at + "mlp.up_proj.weight", y, config_.intermediate_size);
    for (std::size_t i = 0; i < gate.size(); ++i)
      gate[i] = gate[i] / (1.0 + std::exp(-gate[i])) * up[i];
    const row down = product(at + "mlp.down_proj.weight", gate, config_.hidden_size);
    for (std::size_t i = 0; i < x.size(); ++i)
      x[i] += down[i];
  }
}

std::vector<double> naive_decoder::logits(std::span<const token_id> tokens) {
  const auto hidden = static_cast<std::size_t>(config_.hidden_size);
  const std::string table = "model.embed_tokens.weight";
  std::vector<row> residual;
  for (const token_id token : tokens) {
    const auto& all = weight(table, config_.vocab_size, config_.hidden_size);
    const auto first = all.begin() + static_cast<std::ptrdiff_t>(token * config_.hidden_size);
    residual.emplace_back(first, first + static_cast<std::ptrdiff_t>(hidden));
  }
  for (std::int64_t i = 0; i < config_.layers; ++i)
    layer(i, residual);
  const row last = norm("model.norm.weight", residual.back());
  return product(config_.tie_word_embeddings ? table : "lm_head.weight", last, config_.vocab_size);
}

} // namespace troupe::engine::test
