#pragma once

#include "engine/request/step.hpp"
#include "troupe/base/error.hpp"

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace troupe::engine {

class collective;

/// What an executor is made from: the resolved engine arguments of one rank of one replica.
struct executor_options {
  /// The Hugging Face folder: config.json and *.safetensors.
  std::filesystem::path model_dir;
  /// "auto" (the checkpoint's), "float32" or "bfloat16".
  std::string dtype = "auto";
  /// "auto" (the compute type's), "float32" or "bfloat16".
  std::string kv_cache_dtype = "auto";
  /// "auto", "safetensors" or "dummy" (seeded random weights of the shape in config.json).
  std::string load_format = "auto";
  std::uint64_t seed = 0;
  std::uint32_t block_size = 16;
  /// 0 takes the model's own limit.
  std::uint32_t max_model_len = 0;
  std::uint32_t max_num_seqs = 64;
  /// Not given: measured at load so that a full step takes at most `step_target`.
  std::optional<std::uint32_t> max_num_batched_tokens;
  std::chrono::milliseconds step_target{250};
  /// Bytes for the KV cache; not given: the policy of config/ decides from the model's needs.
  std::optional<std::uint64_t> kv_cache_bytes;
  std::optional<std::uint32_t> num_blocks;
  /// Bytes of host memory for blocks of preempted sequences (step_batch::saved), of this rank.
  std::uint64_t swap_bytes = 0;
  /// The share of a GPU's memory that weights, working memory and KV cache may take together, where
  /// the KV cache has no size of its own. Means nothing on a CPU.
  double gpu_memory_utilization = 0.9;
  /// Asks a GPU for batch-invariant products, at the price of speed; the CPU's always are.
  bool deterministic = false;
  /// Compute threads, the caller's included; 0 takes one per core.
  std::uint32_t threads = 0;
  /// This executor's rank among the tensor-parallel ranks of its replica. Each reads and holds its
  /// part of the weights and of the KV heads; all are given the same steps in the same order.
  std::uint32_t rank = 0;
  std::uint32_t ranks = 1;
  /// How the ranks exchange; not null where there are several (collective.hpp).
  std::shared_ptr<collective> group;
  /// How long a step may wait for another rank before it ends in an error.
  std::chrono::milliseconds exchange_limit{10'000};
  /// Where what was measured is kept for later starts (tuned_file.hpp); empty: nowhere.
  std::filesystem::path cache_dir;
  /// Kept until the executor has given back all its memory, for whoever waits for that.
  std::shared_ptr<const void> tenure;
};

/// What a loaded executor is. Valid after load().
struct executor_description {
  /// "cpu", "simulated", "cuda".
  std::string kind;
  /// Instruction set or device, e.g. "avx512bf16".
  std::string device;
  std::string architecture;
  std::string dtype;
  std::string kv_cache_dtype;
  std::uint32_t block_size = 0;
  std::uint32_t num_blocks = 0;
  /// Places in host memory: of several ranks all have as many.
  std::uint32_t num_host_blocks = 0;
  std::uint64_t kv_bytes_per_block = 0;
  std::uint64_t weight_bytes = 0;
  std::uint32_t vocab_size = 0;
  std::uint32_t max_model_len = 0;
  std::uint32_t max_num_seqs = 0;
  std::uint32_t max_num_batched_tokens = 0;
  /// True when max_num_batched_tokens was measured here and not given.
  bool batched_tokens_measured = false;
  /// True when a row's bits do not depend on the batch that it is computed in.
  bool batch_invariant = false;
  /// A hash of {weights, dtype, KV dtype, kind, device path, deterministic or not}. Equal numerics
  /// give equal tokens.
  std::uint64_t numerics = 0;
};

/// What load() would take of a device's memory, in bytes.
struct memory_forecast {
  /// As executor_description has them.
  std::string device;
  std::string dtype;
  /// All memory of the device, and what nobody has taken of it; 0 when unknown.
  std::uint64_t total_bytes = 0;
  std::uint64_t free_bytes = 0;
  std::uint64_t weight_bytes = 0;
  /// Activations, inputs of steps, workspaces.
  std::uint64_t work_bytes = 0;
  std::uint64_t kv_bytes_per_block = 0;
  std::uint32_t block_size = 0;
  std::uint32_t num_blocks = 0;
  std::uint32_t max_model_len = 0;

  [[nodiscard]] std::uint64_t kv_bytes() const noexcept { return num_blocks * kv_bytes_per_block; }
};

/// Called while loading with the share done, 0 to 1, and what is being done. From the loading
/// thread.
using load_progress = std::function<void(double share, std::string_view what)>;

/// Runs the steps of one rank: holds the weights, the KV memory and what it knows of each sequence.
///
/// Used by one thread at a time, which may block. Every step goes prepare, launch, sample, collect,
/// in the order of step numbers; an executor that works ahead of its caller accepts prepare and
/// launch of step N+1 before collect of N. An error of a whole step names it; after one, or after
/// reset(), all sequences are new to the executor. It never ends the process.
///
/// A tensor-parallel rank is an executor too: each rank runs in a thread of its own, brings the
/// same result, and has the numerics of the whole. load() of all ranks ends together. When a rank
/// fails for a reason of its own, it aborts its group, and all ranks are made anew.
class executor {
public:
  virtual ~executor() = default;

  /// Tells from config.json and from the device what load() would reserve, and reserves nothing:
  /// exact to what the device's allocator rounds, for a GPU some hundredths. `promised` bytes will
  /// have been taken by others before. Of several ranks each tells its own. Cost: no weights are
  /// read; a GPU is opened.
  /// @errors as load()'s that come from the options, config.json, a missing NCCL and the size of
  ///         the memory; unsupported: this executor cannot tell
  [[nodiscard]] virtual result<memory_forecast> foresee(std::uint64_t promised);
  /// Reads weights, sizes and reserves the KV cache, measures what is to be measured.
  /// @errors not_found, corrupt_data, unsupported, out_of_memory (the note says what would fit)
  [[nodiscard]] virtual result<void> load(const load_progress& progress) = 0;
  [[nodiscard]] virtual const executor_description& describe() const = 0;

  /// Learns and forgets sequences, checks the rows against what is known and stages the inputs.
  /// @errors invalid_argument: an unknown sequence, a gap in positions, a block out of range, a
  ///         token outside the vocabulary, more rows or tokens than the limits, a host place out of
  ///         range, used twice or restored with nothing saved there
  [[nodiscard]] virtual result<void> prepare(const step_batch& step) = 0;
  /// Starts the forward pass of a prepared step.
  [[nodiscard]] virtual result<void> launch(step_id step) = 0;
  /// Chooses the next token of every row that samples. Separate from launch because masks of
  /// grammars and drafts bind here, late.
  [[nodiscard]] virtual result<void> sample(step_id step) = 0;
  /// Whether collect() would hand over the step without waiting. An executor that does the work in
  /// launch() and sample() is always done; one that answers false works on while its caller
  /// prepares the next step.
  [[nodiscard]] virtual bool finished(step_id) const { return true; }
  /// Waits for the step and hands over what it brought.
  [[nodiscard]] virtual result<step_result> collect(step_id step) = 0;
  /// Forgets all sequences and steps, and what was saved to host places. The KV contents are
  /// undefined after it.
  virtual void reset() = 0;
  /// Whether what it computes with is damaged: no step succeeds any more, and it is to be made and
  /// loaded anew. The step that found out says why.
  [[nodiscard]] virtual bool spoiled() const noexcept { return false; }
};

/// Makes an executor of a kind in the table: "cpu", "simulated", or "cuda:0" with the number of the
/// GPU, which opens libtroupe_cuda.so.
/// @errors not_found: names the kinds that there are, or says that there is no GPU or no library;
///         and what plugin.hpp says
[[nodiscard]] result<std::unique_ptr<executor>> make_executor(std::string_view kind,
                                                              executor_options options);

/// Whether an error has taken the device of a kind ("cuda:0") from this process for good, and
/// nothing has its memory any more: an executor in another process may have it.
[[nodiscard]] bool is_lost(std::string_view kind);

} // namespace troupe::engine
