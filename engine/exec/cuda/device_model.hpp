#pragma once

#include "engine/exec/cuda/rank_link.hpp"
#include "engine/exec/cuda/runtime.hpp"
#include "engine/exec/cuda/weight_uploader.hpp"
#include "kernels/cuda/matmul.hpp"

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace troupe::engine::cuda {

/// The inputs of one pass; arrays of the device.
struct forward_batch {
  std::int64_t rows = 0;
  /// Rows whose logits are wanted, and their numbers.
  std::int64_t picked = 0;
  const std::int32_t* pick = nullptr;
  const kernels::cuda::batch_row* batch = nullptr;
  /// The tokens that earlier steps chose.
  const std::int32_t* sampled = nullptr;
  /// What attention() takes of the batch; the recipe fills in what belongs to a layer.
  kernels::cuda::attention_args attention;
  /// From the first to behind the last row that is no prompt's.
  std::int64_t decodes_begin = 0;
  std::int64_t decodes_end = 0;
  /// Where each row is a sequence's only one and all go through turned_attention(): its `team`;
  /// else 0.
  int turned = 0;
  /// Whether the logits are wanted, and not only what leads among them.
  bool logits = true;
  /// The same of the picked rows alone, one behind the other; no rows where it is not told.
  kernels::cuda::attention_args sampling;
};

/// How much a pass may have of everything.
struct device_limits {
  std::int64_t rows = 0;
  std::int64_t picked = 0;
  std::int64_t positions = 0;
};

/// The pre-norm decoder of Llama, Mistral and Qwen3 on a GPU, with its working memory: in each
/// layer x += attention(norm(x)), x += mlp(norm(x)); then a last norm and the head. The residual
/// and the logits are f32; all else has the compute type. One thread at a time.
///
/// A rank of several has its heads, its columns and its rows of the head. What o_proj and down_proj
/// give is summed over all ranks in the compute type, or, where products are ordered, gathered in
/// f32 and summed as a tree; the logits are gathered, so all ranks have all of them.
class device_model {
public:
  /// The shape alone, to be asked what it will take.
  /// @errors unsupported: an architecture or a shape without a kernel, a split that does not divide
  [[nodiscard]] static result<device_model> plan(const model_config& whole,
                                                 const model_shard& shard, kernels::dtype compute,
                                                 bool deterministic);
  /// Bytes of the device that load() takes, with rope tables for so many positions.
  [[nodiscard]] std::uint64_t weight_bytes(std::int64_t positions) const;
  /// Bytes of the device that reserve() takes.
  [[nodiscard]] std::uint64_t work_bytes(const device_limits& limits) const;
  /// `link` ties the ranks of from.shard and outlives the model; null for one rank.
  /// @errors as the loader's; unsupported: an architecture or a shape without a kernel
  [[nodiscard]] static result<device_model> load(const load_context& from, weight_uploader& bring,
                                                 bool deterministic, rank_link* link = nullptr);
  /// Reserves working memory for passes.
  /// @errors out_of_memory
  [[nodiscard]] result<void> reserve(const device_limits& limits);
  /// Measures the products of passes of `rows` rows and keeps the fastest algorithms; that of the
  /// head only where so many rows may be picked.
  [[nodiscard]] result<void> tune(std::int64_t rows, bool with_head, stream_ref on);
  [[nodiscard]] kernels::cuda::matmul_choices choices() const { return library_.choices(); }
  /// Lets tune() take what an earlier start measured.
  void recall(kernels::cuda::matmul_choices known) { library_.recall(std::move(known)); }
  /// Runs the products of passes of `rows` rows once, so that no step asks for an algorithm or
  /// loads a kernel.
  [[nodiscard]] result<void> warm(std::int64_t rows, stream_ref on);
  /// The rows that products are made with where a pass has `rows`: one of few sizes, so that all of
  /// them are known when steps begin. What stands behind the real rows is computed and not read.
  [[nodiscard]] static std::int64_t padded(std::int64_t rows, std::int64_t most) noexcept;
  /// Which kernel each product of a pass of `rows` rows takes, in words.
  [[nodiscard]] std::string kernels_of(std::int64_t rows) const;

  /// Enqueues one pass. Writes the caches and the logits of the picked rows.
  /// @pre    reserve() for as many rows; `caches` has one entry per layer
  [[nodiscard]] result<void> forward(const forward_batch& batch,
                                     const std::vector<kernels::cuda::kv_cache>& caches,
                                     stream_ref on);

  /// [picked, vocabulary] of the pass that was enqueued last, where they were wanted or no leaders
  /// are told.
  [[nodiscard]] const float* logits() const noexcept { return logits_.as<float>(); }
  /// What leads among parts of them, where the head told it: [picked, count_leaders(picked)].
  [[nodiscard]] kernels::cuda::row_leader* leaders() const noexcept {
    return leaders_.as<kernels::cuda::row_leader>();
  }
  /// How many leaders a row of a pass with so many picked ones has; 0 where none is told.
  [[nodiscard]] std::int32_t count_leaders(std::int64_t picked) const;
  /// Makes the logits of the last pass, or with `only_leaders` what leads where that is told.
  [[nodiscard]] result<void> make_logits(std::int64_t picked, bool only_leaders, stream_ref on);
  /// The rank's part, but for the vocabulary.
  [[nodiscard]] const model_config& config() const noexcept { return config_; }
  [[nodiscard]] kernels::dtype compute() const noexcept { return compute_; }
  /// Whether a row's bits do not depend on the batch.
  [[nodiscard]] bool batch_invariant() const noexcept { return ordered_; }

private:
  struct layer {
    device_buffer attention_norm;
    device_buffer qkv;
    device_buffer q_norm;
    device_buffer k_norm;
    device_buffer output;
    device_buffer mlp_norm;
    device_buffer gate_up;
    device_buffer down;
  };

  /// A product of the compute type: out [rows, n] = a [rows, k] w^T.
  struct product {
    const device_buffer* a;
    const device_buffer* w;
    const device_buffer* out;
    std::int64_t n;
    std::int64_t k;
    kernels::dtype out_type;
    /// Every rank's result lies in `out`, one behind the other.
    bool gathered = false;
    /// Columns of `out`, where they are more than n.
    std::int64_t ldo = 0;
    /// The row of w that is the first.
    std::int64_t first_row = 0;
    /// Adds to `out`.
    bool add = false;
    /// The weight of the norm that it begins; null for none.
    const device_buffer* begins = nullptr;
    /// Ends the norm of a that the product in front has begun.
    bool ends = false;
    /// Tells what leads among its outputs to leaders_, and stores them or does not.
    bool leads = false;
    bool stores = true;
  };

  /// How the norms of a layer are made.
  struct layer_norms {
    /// What they add to the residual first; null where products did.
    const device_buffer* delta = nullptr;
    /// That of attention and that of the MLP are begun by the product in front and ended by the one
    /// behind: no kernel stands between these.
    bool split_attention = false;
    bool split_mlp = false;
    /// The weight of the next layer's first norm, where down begins it.
    const device_buffer* next = nullptr;
  };

  [[nodiscard]] static result<layer> load_layer(const load_context& from, weight_uploader& bring,
                                                std::int64_t index);
  [[nodiscard]] kernels::cuda::matmul_args args_of(const product& p, std::int64_t rows) const;
  [[nodiscard]] result<void> multiply(const product& p, std::int64_t rows, stream_ref on);
  /// @param pick  which rows of the residual; null for the first
  [[nodiscard]] result<void> norm(const device_buffer& weight, const device_buffer* delta,
                                  std::int64_t rows, const std::int32_t* pick, stream_ref on);
  /// That of no delta, for products that norm.
  [[nodiscard]] kernels::cuda::normed_source residual_normed_by(const device_buffer& weight) const;
  /// What attention() takes of a layer.
  [[nodiscard]] kernels::cuda::attention_args
  attention_of(kernels::cuda::attention_args batch, const kernels::cuda::kv_cache& cache) const;
  /// Whether attention turns q of prompts itself.
  [[nodiscard]] bool turns_prompts(const layer& of, std::int64_t rows,
                                   const kernels::cuda::attention_args& attention) const noexcept;
  /// What rope_store() takes, of the heads that `attention` has: q, or k and v, may stand alone.
  [[nodiscard]] kernels::cuda::rope_store_args
  rope_of(const layer& of, const kernels::cuda::attention_args& attention) const;
  /// Makes qkv_ of the residual and what is to be added to it.
  [[nodiscard]] result<void> project(const layer& of, const layer_norms& norms, std::int64_t rows,
                                     stream_ref on);
  /// Makes of qkv_ what a layer's attention gives.
  [[nodiscard]] result<void> attend(const layer& of, const forward_batch& batch,
                                    const kernels::cuda::kv_cache& cache, stream_ref on);
  /// Adds what attention gave to the residual, or leaves it to be added.
  [[nodiscard]] result<void> put_out(const layer& of, const layer_norms& norms, std::int64_t rows,
                                     stream_ref on);
  [[nodiscard]] result<void> run_layer(std::size_t index, const forward_batch& batch,
                                       const kernels::cuda::kv_cache& cache, layer_norms norms,
                                       stream_ref on);
  /// How layers of passes of so many rows norm, but for `next`.
  [[nodiscard]] layer_norms norms_of(std::int64_t rows) const;
  /// Whether the norm in front of that of products_of() with this number is split.
  [[nodiscard]] bool splits_norm(std::size_t index, std::int64_t rows) const;
  /// Whether the last layer leaves out what no row that samples reads.
  [[nodiscard]] bool narrows(const forward_batch& batch) const noexcept;
  /// K and V of all rows, and all else of the picked ones: behind it they are the first rows.
  [[nodiscard]] result<void> run_last_layer(const forward_batch& batch,
                                            const kernels::cuda::kv_cache& cache, stream_ref on);
  /// The picked rows' q, from what their norm gave.
  [[nodiscard]] result<void> query_picked(const layer& of, const forward_batch& batch,
                                          const kernels::cuda::kv_cache& cache, stream_ref on);
  /// Makes the picked rows of residual_ its first.
  [[nodiscard]] result<void> gather_residual(const forward_batch& batch, stream_ref on);
  /// Makes gated_ of gate_up_.
  [[nodiscard]] result<void> silu(std::int64_t rows, stream_ref on);
  /// Makes gated_ of the residual and what is to be added to it.
  [[nodiscard]] result<void> gate(const layer& of, const layer_norms& norms, std::int64_t rows,
                                  stream_ref on);
  [[nodiscard]] result<void> feed(const layer& of, const layer_norms& norms, std::int64_t rows,
                                  stream_ref on);
  /// Chooses between kernels by what layers take with each, where several are near each other.
  /// @param decodes  a step of decodes alone may have so many rows
  [[nodiscard]] result<void> choose_in_layers(std::int64_t rows, bool decodes, stream_ref on);
  /// Milliseconds of some layers without their attention.
  [[nodiscard]] result<float> time_layers(std::int64_t rows, stream_ref on);
  /// The products of a layer and the head for so many rows.
  [[nodiscard]] std::vector<product> products_of(const layer& of, std::int64_t rows) const;
  /// Whether products of so many rows add to residual_ themselves, and leave nothing in delta_.
  [[nodiscard]] bool sums_in_products(std::int64_t rows) const noexcept;
  /// Whether the products of residual_ norm it themselves.
  [[nodiscard]] bool norms_in_products(std::int64_t rows) const noexcept;
  /// Whether that of products_of() with this number does.
  [[nodiscard]] bool norms_itself(std::size_t index, std::int64_t rows) const noexcept;
  [[nodiscard]] product qkv_product(const layer& of) const;
  /// q of the merged product alone, and k and v.
  [[nodiscard]] product query_product(const layer& of, const device_buffer& a) const;
  [[nodiscard]] product kv_product(const layer& of) const;
  [[nodiscard]] product head_product() const;
  /// A product into delta_ that is a sum over the ranks.
  [[nodiscard]] product summed_product(const device_buffer& a, const device_buffer& w,
                                       std::int64_t k, std::int64_t rows) const;
  /// Makes delta_ the sum of what all ranks have.
  [[nodiscard]] result<void> add_ranks(std::int64_t rows, stream_ref on);
  /// Makes logits_ of every rank's columns.
  [[nodiscard]] result<void> gather_logits(std::int64_t picked, stream_ref on);
  /// Columns of the logits that a rank has at most.
  [[nodiscard]] std::int64_t part_cols() const noexcept;
  [[nodiscard]] std::int64_t gathered_bytes(const device_limits& limits) const noexcept;
  /// Something in the working memory, of which some arenas are used by one after the other.
  struct work_part {
    device_buffer device_model::*to;
    std::int64_t bytes;
    std::size_t arena = 0;
    /// Parts of an arena lie beside each other within a phase; no two phases are wanted at once.
    std::size_t phase = 0;
  };
  static constexpr std::size_t arena_count = 3;
  static constexpr std::size_t phase_count = 2;
  using arena_sizes = std::array<std::array<std::int64_t, phase_count>, arena_count>;
  [[nodiscard]] std::array<work_part, 13> work_parts(const device_limits& limits) const noexcept;
  [[nodiscard]] arena_sizes sizes_of_arenas(const device_limits& limits) const noexcept;
  [[nodiscard]] const device_buffer& head() const {
    return config_.tie_word_embeddings ? table_ : head_;
  }

  /// As args_of(), for padded rows; at most as many as there is memory for.
  [[nodiscard]] kernels::cuda::matmul_args padded_args_of(const product& p,
                                                          std::int64_t rows) const;

  model_config config_;
  device_limits limits_;
  model_shard shard_;
  rank_link* link_ = nullptr;
  kernels::dtype compute_ = kernels::dtype::f32;
  /// Products have one order of summation.
  bool ordered_ = true;
  device_buffer table_;
  device_buffer head_;
  device_buffer last_norm_;
  device_buffer cos_;
  device_buffer sin_;
  std::vector<layer> layers_;

  std::array<device_buffer, arena_count> arenas_;
  device_buffer workspace_;
  kernels::cuda::matmul_library library_;
  device_buffer residual_;
  device_buffer normed_;
  /// Of norms that are split.
  device_buffer squares_;
  device_buffer qkv_;
  device_buffer query_;
  device_buffer attended_;
  device_buffer gate_up_;
  device_buffer gated_;
  device_buffer delta_;
  /// What the ranks give, one behind the other.
  device_buffer gathered_;
  device_buffer logits_;
  device_buffer leaders_;
};

} // namespace troupe::engine::cuda
