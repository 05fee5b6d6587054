#pragma once

#include "engine/models/loader.hpp"
#include "engine/models/model.hpp"
#include "engine/models/rope.hpp"

#include <string>
#include <vector>

/// The parts that recipes are made of. Each is loaded once and then only read. Each forward is
/// collective, begins where everything that it reads has been written, and ends with
/// a barrier, so that parts can be put one after the other without thinking of them.
namespace troupe::engine {

/// A learned RMS norm.
struct norm_block {
  std::vector<float> weight;
  float eps = 1e-6F;

  [[nodiscard]] static result<norm_block> load(const load_context& from, const std::string& name,
                                               std::int64_t size);

  /// The normed rows, in the input type of products, ready to be read by the calling member. With
  /// few rows every member makes them all for itself, without a barrier.
  /// @shape  x [rows, hidden] f32
  struct output {
    const void* data;
    std::int64_t stride;
  };
  [[nodiscard]] output forward(kernels::cpu::member& m, rows_buffer& x, std::int64_t rows,
                               activations& work) const;
};

/// Sizes and names of an attention block.
struct attention_options {
  /// "model.layers.3.self_attn."
  std::string prefix;
  /// RMS norms over each head of q and k, before rope.
  bool qk_norm = false;
};

/// Grouped-query attention with rope over the paged cache, its output added to the residual.
struct attention_block {
  kernels::cpu::packed_matrix qkv;
  kernels::cpu::packed_matrix output;
  std::int32_t segments = 1;
  std::vector<float> q_norm;
  std::vector<float> k_norm;

  [[nodiscard]] static result<attention_block> load(const load_context& from,
                                                    const attention_options& options);

  struct inputs {
    norm_block::output x;
    const forward_batch* batch;
    const kernels::cpu::kv_cache* cache;
    const rope_tables* rope;
    /// Of what this rank holds.
    const model_config* config;
  };
  /// q, k and v of all rows; k and v go to the cache.
  void project(kernels::cpu::member& m, const inputs& in, activations& work) const;
  /// What `rows` see, at their places in work.attended.
  void attend(kernels::cpu::member& m, const inputs& in,
              std::span<const kernels::cpu::sequence_rows> rows, activations& work) const;
  /// Adds what the rows of `batch` saw to the residual.
  void add(kernels::cpu::member& m, const forward_batch& batch, activations& work) const;
};

/// Makes the rows `kept`, ascending, the first of a buffer.
void keep_rows(kernels::cpu::member& m, rows_buffer& from, std::span<const std::int64_t> kept);

/// The gated feed-forward block, down(silu(gate(x)) * up(x)), added to the residual.
struct mlp_block {
  kernels::cpu::packed_matrix gate_up;
  kernels::cpu::packed_matrix down;
  std::int32_t segments = 1;

  /// `prefix` is as "model.layers.3.mlp."
  [[nodiscard]] static result<mlp_block> load(const load_context& from, const std::string& prefix);

  void forward(kernels::cpu::member& m, norm_block::output x, const forward_batch& batch,
               activations& work) const;
};

/// The embedding table and the output head, which may be the same matrix. A tied model has one
/// copy, the packed head, and reads embeddings out of it; otherwise the table stays where the
/// checkpoint has it (a mapping costs no private memory). A rank of several packs its part of the
/// head, and reads embeddings from the checkpoint also when tied, of the tokens that it is given.
struct vocabulary_block {
  kernels::cpu::packed_matrix head;
  /// Unused when tied and whole.
  weight_tensor table;
  bool tied = false;
  model_shard shard;

  [[nodiscard]] static result<vocabulary_block> load(const load_context& from);

  /// work.residual = the embedding of each token.
  void embed(kernels::cpu::member& m, std::span<const token_id> tokens, activations& work) const;
  /// work.logits_rows = the logits of the sampled rows, after `last` has normed them.
  void logits(kernels::cpu::member& m, const forward_batch& batch, const norm_block& last,
              activations& work) const;

private:
  void gather_logits(kernels::cpu::member& m, norm_block::output x, const forward_batch& batch,
                     activations& work) const;
};

} // namespace troupe::engine
