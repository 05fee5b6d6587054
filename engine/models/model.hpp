#pragma once

#include "engine/models/activations.hpp"
#include "engine/models/shard.hpp"
#include "engine/weights/model_config.hpp"
#include "kernels/cpu/ops.hpp"

#include <cstdint>
#include <span>

namespace troupe::engine {

/// What one forward pass computes. Rows are token positions; the rows of a sequence are adjacent.
struct forward_batch {
  /// One token per row, each inside the vocabulary.
  std::span<const token_id> tokens;
  /// Which rows belong to which sequence, in the order of rows; together they cover all rows.
  std::span<const kernels::cpu::sequence_rows> sequences;
  /// The rows whose logits are wanted, ascending.
  std::span<const std::int64_t> sampled_rows;
  /// Those rows once more, each a sequence of one row. With them the last layer computes of all
  /// other rows K and V alone, which changes no logits; without them it computes all.
  std::span<const kernels::cpu::sequence_rows> sampling;
  /// The KV cache of each layer.
  std::span<const kernels::cpu::kv_cache> caches;
  /// How this rank exchanges with the others; nullptr for a whole model.
  rank_exchange* exchange = nullptr;
  model_shard shard{};
};

/// A loaded model: immutable, so any number of passes may follow each other.
class model {
public:
  virtual ~model() = default;

  /// The shape of what was loaded: config_of_shard() of the model's.
  [[nodiscard]] virtual const model_config& config() const noexcept = 0;
  /// Memory that the weights take here, without what stays in the file's mapping.
  [[nodiscard]] virtual std::uint64_t weight_bytes() const noexcept = 0;

  /// Computes the batch: writes K and V of all rows to the caches and the logits of the sampled
  /// rows to `work.logits_rows`. Collective: every member of the team calls it with the same
  /// arguments. The results are complete when all members have returned. A row may read positions
  /// that another row of the same batch writes: in each layer all K and V are written before any is
  /// read. The ranks of a split model each compute the same batch with block tables of the same
  /// numbers; all have the logits. When an exchange fails the results mean nothing.
  /// @shape  work.logits_rows [sampled rows, vocabulary] f32
  /// @pre    no more rows, sampled rows and members than `work` was made for; caches of the
  ///         model's shape; block tables that cover all positions
  virtual void forward(kernels::cpu::member& m, const forward_batch& batch,
                       activations& work) const = 0;
};

} // namespace troupe::engine
