#include "engine/models/blocks.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

namespace troupe::engine {

namespace cpu = kernels::cpu;
using kernels::dtype;

namespace {

/// In how many segments a rank sums its part of a product over K: its share of the tree of eight
/// where the whole K has one.
std::int32_t segments_of(std::int64_t k, const model_shard& shard) {
  return k % (2 * cpu::tree_segments) == 0
             ? static_cast<std::int32_t>(cpu::tree_segments / shard.ranks)
             : 1;
}

/// A product whose K is split between ranks.
struct split_product {
  rows_buffer* a;
  const cpu::packed_matrix* w;
  std::int32_t segments;
};

void add_range(float* to, const float* from, std::int64_t size) {
  for (std::int64_t i = 0; i < size; ++i)
    to[i] += from[i];
}

/// work.residual += the sums of all ranks in work.gathered, which are joined as a balanced tree.
void add_gathered(cpu::member& m, std::int64_t rows, std::uint32_t ranks, activations& work) {
  // Rows lie one behind the other and both buffers have the same stride, so padding is no matter.
  const std::int64_t size = rows * work.gathered.stride();
  const cpu::share mine = m.split(size);
  float* const parts = work.gathered.floats() + mine.begin;
  for (std::uint32_t step = 1; step < ranks; step *= 2)
    for (std::uint32_t rank = 0; rank < ranks; rank += 2 * step)
      add_range(parts + rank * size, parts + (rank + step) * size, mine.end - mine.begin);
  add_range(work.residual.floats() + mine.begin, parts, mine.end - mine.begin);
}

/// Gathers `rows` rows of each rank in `all`, those of this rank being there, between barriers.
void gather(cpu::member& m, rank_exchange& exchange, rows_buffer& all, std::int64_t rows,
            const model_shard& shard) {
  m.sync();
  if (m.rank() == 0) {
    const auto bytes = static_cast<std::size_t>(rows * all.stride()) * kernels::size_of(all.type());
    const std::span everything{static_cast<std::byte*>(all.data()), bytes * shard.ranks};
    exchange.gather(everything.subspan(bytes * shard.rank, bytes), everything);
  }
  m.sync();
}

/// work.residual[token row] += a w^T over the K of all ranks, then a barrier.
void add_product(cpu::member& m, const split_product& product, const forward_batch& batch,
                 activations& work) {
  const auto rows = static_cast<std::int64_t>(batch.tokens.size());
  const bool whole = batch.exchange == nullptr;
  rows_buffer& out = whole ? work.residual : work.gathered;
  const std::int64_t first = whole ? 0 : rows * batch.shard.rank;
  cpu::linear(m, {.a = product.a->data(),
                  .lda = product.a->stride(),
                  .w = product.w,
                  .c = static_cast<float*>(out.row(first)),
                  .ldc = out.stride(),
                  .rows = rows,
                  .k_segments = product.segments,
                  .accumulate = whole});
  if (!whole) {
    gather(m, *batch.exchange, out, rows, batch.shard);
    add_gathered(m, rows, batch.shard.ranks, work);
  }
  m.sync();
}

/// Row `row` of a plain packed matrix as f32.
template <class Element, class ToFloat>
void unpack_row(const cpu::packed_matrix& w, std::int64_t row, float* out, ToFloat to_float) {
  // bf16 keeps pairs of k adjacent, f32 single ones.
  constexpr std::int64_t group = sizeof(Element) == 2 ? 2 : 1;
  const auto* const panel = static_cast<const Element*>(w.panel(row / cpu::panel_width));
  const Element* column = panel + row % cpu::panel_width * group;
  for (std::int64_t k = 0; k < w.cols(); ++k)
    out[k] = to_float(column[k / group * group * cpu::panel_width + k % group]);
}

/// Rounds to what bf16 can hold.
void round_row(float* row, std::int64_t cols) {
  for (std::int64_t i = 0; i < cols; ++i)
    row[i] = kernels::from_bf16(kernels::to_bf16(row[i]));
}

} // namespace

result<norm_block> norm_block::load(const load_context& from, const std::string& name,
                                    std::int64_t size) {
  auto weight = load_vector(from, name, size);
  if (!weight)
    return fail(weight.error());
  return norm_block{std::move(*weight), static_cast<float>(from.config.rms_norm_eps)};
}

norm_block::output norm_block::forward(cpu::member& m, rows_buffer& x, std::int64_t rows,
                                       activations& work) const {
  const bool alone = rows <= activations::private_norm_rows;
  rows_buffer& out = alone ? work.private_normed : work.normed;
  void* const data = alone ? out.row(activations::private_norm_rows * m.rank()) : out.data();
  cpu::rms_norm(m, {.x = x.floats(),
                    .x_stride = x.stride(),
                    .weight = weight.data(),
                    .eps = eps,
                    .rows = rows,
                    .cols = static_cast<std::int64_t>(weight.size()),
                    .out = data,
                    .out_stride = out.stride(),
                    .out_type = out.type(),
                    .every_member = alone});
  if (!alone)
    m.sync();
  return {data, out.stride()};
}

result<attention_block> attention_block::load(const load_context& from,
                                              const attention_options& options) {
  const model_config& config = from.config;
  const std::int64_t query = config.heads * config.head_dim;
  const std::int64_t kv = config.kv_heads * config.head_dim;
  attention_block block;
  const matrix_part parts[] = {{options.prefix + "q_proj.weight", query},
                               {options.prefix + "k_proj.weight", kv},
                               {options.prefix + "v_proj.weight", kv}};
  auto qkv = load_matrix(from, parts, config.hidden_size, {.axis = shard_axis::rows});
  if (!qkv)
    return fail(qkv.error());
  block.qkv = std::move(*qkv);
  const matrix_part out[] = {{options.prefix + "o_proj.weight", config.hidden_size}};
  auto output = load_matrix(from, out, query, {.axis = shard_axis::cols});
  if (!output)
    return fail(output.error());
  block.output = std::move(*output);
  block.segments = segments_of(query, from.shard);
  if (!options.qk_norm)
    return block;
  for (auto& [name, norm] :
       {std::pair{"q_norm.weight", &block.q_norm}, std::pair{"k_norm.weight", &block.k_norm}}) {
    auto weight = load_vector(from, options.prefix + name, config.head_dim);
    if (!weight)
      return fail(weight.error());
    *norm = std::move(*weight);
  }
  return block;
}

void attention_block::project(cpu::member& m, const inputs& in, activations& work) const {
  const model_config& config = *in.config;
  const auto rows = static_cast<std::int64_t>(in.batch->tokens.size());
  const auto heads = static_cast<std::int32_t>(config.heads);
  cpu::linear(m, {.a = in.x.data,
                  .lda = in.x.stride,
                  .w = &qkv,
                  .c = work.qkv.floats(),
                  .ldc = work.qkv.stride(),
                  .rows = rows});
  m.sync();
  cpu::rope_store(m, {.qkv = work.qkv.floats(),
                      .qkv_stride = work.qkv.stride(),
                      .heads = heads,
                      .cache = *in.cache,
                      .sequences = in.batch->sequences,
                      .q_norm = q_norm.empty() ? nullptr : q_norm.data(),
                      .k_norm = k_norm.empty() ? nullptr : k_norm.data(),
                      .eps = static_cast<float>(config.rms_norm_eps),
                      .cos = in.rope->cos.data(),
                      .sin = in.rope->sin.data(),
                      .table_positions = in.rope->positions,
                      .rotary_dim = static_cast<std::int32_t>(config.head_dim),
                      .q = work.query.data(),
                      .q_stride = work.query.stride()});
  m.sync();
}

void attention_block::attend(cpu::member& m, const inputs& in,
                             std::span<const cpu::sequence_rows> rows, activations& work) const {
  const model_config& config = *in.config;
  cpu::attention(
      m, {.q = work.query.data(),
          .q_stride = work.query.stride(),
          .heads = static_cast<std::int32_t>(config.heads),
          .cache = *in.cache,
          .sequences = rows,
          .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.head_dim))),
          .out = work.attended.data(),
          .out_stride = work.attended.stride(),
          .out_type = work.attended.type()});
  m.sync();
}

void attention_block::add(cpu::member& m, const forward_batch& batch, activations& work) const {
  add_product(m, {.a = &work.attended, .w = &output, .segments = segments}, batch, work);
}

void keep_rows(cpu::member& m, rows_buffer& from, std::span<const std::int64_t> kept) {
  // A member has some columns of all rows, so that what it overwrites it has read before.
  const std::size_t size = kernels::size_of(from.type());
  const cpu::share mine = m.split(from.stride());
  const auto column = static_cast<std::size_t>(mine.begin) * size;
  const auto bytes = static_cast<std::size_t>(mine.end - mine.begin) * size;
  for (std::size_t i = 0; i < kept.size(); ++i)
    std::memmove(static_cast<std::byte*>(from.row(static_cast<std::int64_t>(i))) + column,
                 static_cast<const std::byte*>(from.row(kept[i])) + column, bytes);
  m.sync();
}

result<mlp_block> mlp_block::load(const load_context& from, const std::string& prefix) {
  const model_config& config = from.config;
  mlp_block block;
  const matrix_part parts[] = {{prefix + "gate_proj.weight", config.intermediate_size},
                               {prefix + "up_proj.weight", config.intermediate_size}};
  auto gate_up = load_matrix(from, parts, config.hidden_size,
                             {.layout = cpu::pack_layout::gate_up, .axis = shard_axis::rows});
  if (!gate_up)
    return fail(gate_up.error());
  block.gate_up = std::move(*gate_up);
  const matrix_part last[] = {{prefix + "down_proj.weight", config.hidden_size}};
  auto down = load_matrix(from, last, config.intermediate_size, {.axis = shard_axis::cols});
  if (!down)
    return fail(down.error());
  block.down = std::move(*down);
  block.segments = segments_of(config.intermediate_size, from.shard);
  return block;
}

void mlp_block::forward(cpu::member& m, norm_block::output x, const forward_batch& batch,
                        activations& work) const {
  cpu::linear_silu_mul(m, {.a = x.data,
                           .lda = x.stride,
                           .w = &gate_up,
                           .out = work.gated.data(),
                           .ldo = work.gated.stride(),
                           .rows = static_cast<std::int64_t>(batch.tokens.size())});
  m.sync();
  add_product(m, {.a = &work.gated, .w = &down, .segments = segments}, batch, work);
}

result<vocabulary_block> vocabulary_block::load(const load_context& from) {
  const model_config& config = from.config;
  vocabulary_block block;
  block.tied = config.tie_word_embeddings;
  block.shard = from.shard;
  const std::string table = "model.embed_tokens.weight";
  const matrix_part parts[] = {{block.tied ? table : "lm_head.weight", config.vocab_size}};
  auto head = load_matrix(from, parts, config.hidden_size, {.axis = shard_axis::rows});
  if (!head)
    return fail(head.error());
  block.head = std::move(*head);
  if (block.tied && block.shard.whole())
    return block;
  auto tensor = from.source->get({table, {config.vocab_size, config.hidden_size}});
  if (!tensor)
    return fail(tensor.error());
  block.table = std::move(*tensor);
  return block;
}

void vocabulary_block::embed(cpu::member& m, std::span<const token_id> tokens,
                             activations& work) const {
  float* const out = work.residual.floats();
  const std::int64_t stride = work.residual.stride();
  const auto mine = m.split(static_cast<std::int64_t>(tokens.size()));
  if (table.view.data != nullptr) {
    cpu::embed(m, {.table = table.view, .tokens = tokens, .out = out, .out_stride = stride});
    m.sync();
    // What a whole tied model reads is its packed head.
    if (tied && head.type() == dtype::bf16)
      for (std::int64_t i = mine.begin; i < mine.end; ++i)
        round_row(out + i * stride, head.cols());
    m.sync();
    return;
  }
  for (std::int64_t i = mine.begin; i < mine.end; ++i) {
    const token_id token = tokens[static_cast<std::size_t>(i)];
    if (head.type() == dtype::bf16)
      unpack_row<std::uint16_t>(head, token, out + i * stride, kernels::from_bf16);
    else
      unpack_row<float>(head, token, out + i * stride, [](float x) { return x; });
  }
  m.sync();
}

void vocabulary_block::logits(cpu::member& m, const forward_batch& batch, const norm_block& last,
                              activations& work) const {
  const auto rows = static_cast<std::int64_t>(batch.sampled_rows.size());
  if (rows == 0)
    return;
  const bool all = batch.sampled_rows.size() == batch.tokens.size();
  if (!all) {
    cpu::gather_rows(m, {.x = work.residual.floats(),
                         .x_stride = work.residual.stride(),
                         .rows = batch.sampled_rows,
                         .cols = head.cols(),
                         .out = work.sampled.floats(),
                         .out_stride = work.sampled.stride()});
    m.sync();
  }
  const norm_block::output x = last.forward(m, all ? work.residual : work.sampled, rows, work);
  if (!shard.whole())
    return gather_logits(m, x, batch, work);
  cpu::linear(m, {.a = x.data,
                  .lda = x.stride,
                  .w = &head,
                  .c = work.logits_rows.floats(),
                  .ldc = work.logits_rows.stride(),
                  .rows = rows});
}

void vocabulary_block::gather_logits(cpu::member& m, norm_block::output x,
                                     const forward_batch& batch, activations& work) const {
  const auto rows = static_cast<std::int64_t>(batch.sampled_rows.size());
  rows_buffer& parts = work.gathered_logits;
  cpu::linear(m, {.a = x.data,
                  .lda = x.stride,
                  .w = &head,
                  .c = static_cast<float*>(parts.row(rows * shard.rank)),
                  .ldc = parts.stride(),
                  .rows = rows});
  gather(m, *batch.exchange, parts, rows, shard);
  const std::int64_t vocabulary = table.view.shape[0];
  const cpu::share mine = m.split(rows);
  for (std::uint32_t rank = 0; rank < shard.ranks; ++rank) {
    const shard_range range = range_of_shard(vocabulary, {rank, shard.ranks});
    for (std::int64_t row = mine.begin; row < mine.end; ++row)
      std::copy_n(static_cast<const float*>(parts.row(rows * rank + row)), range.size(),
                  static_cast<float*>(work.logits_rows.row(row)) + range.begin);
  }
}

} // namespace troupe::engine
