#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "troupe/base/ids.hpp"
#include "troupe/config/device.hpp"
#include "troupe/config/origin.hpp"
#include "troupe/config/triton.hpp"

namespace troupe::config {

/// The type in which a model computes; `auto_detect` follows the checkpoint.
enum class dtype_choice : std::uint8_t { auto_detect, bfloat16, float16, float32 };
enum class scheduling_policy : std::uint8_t { fcfs, priority };
/// `dummy` fills the weights from the seed and reads no weight file.
enum class load_format : std::uint8_t { auto_detect, safetensors, dummy };

/// What a request gets that does not say otherwise.
/// Precedence: request > override_generation_config > generation_config.json > these defaults
/// (vLLM's).
struct generation_defaults {
  setting<double> temperature{1.0, {}};
  /// 0 means all tokens (-1 in a file means the same).
  setting<std::uint32_t> top_k{0, {}};
  setting<double> top_p{1.0, {}};
  setting<double> min_p{0.0, {}};
  /// From max_new_tokens: the default of max_tokens and its cap. Empty: what fits into the context.
  setting<std::optional<std::uint32_t>> max_tokens;
  /// Each ends a sequence unless ignore_eos. Empty: none is known.
  setting<std::vector<token_id>> eos_token_ids;
};

/// vLLM's engine arguments that Troupe honours, merged from model.json, cluster.json, environment
/// and command line. The tables in engine_arguments.hpp give ranges and defaults.
struct engine_args {
  /// The directory with config.json, tokenizer and weights.
  setting<std::filesystem::path> model;
  /// Which snapshot of the local cache of Hugging Face; empty: main, or the only one.
  setting<std::string> revision;
  /// The directory with tokenizer.json; the model's directory by default.
  setting<std::filesystem::path> tokenizer;
  /// The text of a Jinja template; empty: the model's own.
  setting<std::optional<std::string>> chat_template;
  /// The names clients use; never empty, the model's name by default.
  setting<std::vector<std::string>> served_model_name;
  setting<dtype_choice> dtype;
  setting<config::load_format> load_format;
  /// Tokens of prompt and answer together. Empty only when config.json does not say.
  setting<std::optional<std::uint32_t>> max_model_len;
  setting<std::uint32_t> max_num_seqs{64, {}};
  /// Tokens of one step. Empty until measured; see `with_measured`.
  setting<std::optional<std::uint32_t>> max_num_batched_tokens;
  setting<std::uint32_t> block_size{16, {}};
  /// Bytes of the KV cache of one replica; empty: the executor decides.
  setting<std::optional<std::uint64_t>> kv_cache_memory_bytes;
  setting<std::optional<std::uint32_t>> num_gpu_blocks_override;
  /// The share of a GPU's memory that the model may take, weights and KV cache together.
  setting<double> gpu_memory_utilization{0.9, {}};
  /// GiB of host memory of each rank for preempted sequences; empty: 4 on a GPU, else 0.
  setting<std::optional<double>> swap_space;
  /// Asks a GPU for the same bits alone and in any batch.
  setting<bool> deterministic;
  setting<bool> enable_prefix_caching{true, {}};
  setting<bool> enable_chunked_prefill{true, {}};
  /// Tokens of one prompt in one step at most; 0: no such limit.
  setting<std::uint32_t> long_prefill_token_threshold;
  setting<config::scheduling_policy> scheduling_policy;
  setting<std::uint64_t> seed;
  setting<std::uint32_t> tensor_parallel_size{1, {}};
  /// Threads of one CPU rank, the caller's own included.
  setting<std::uint32_t> cpu_threads{1, {}};
};

/// An argument that is accepted and changes nothing here.
struct ineffective_argument {
  std::string name;
  std::string value;
  origin from;
  /// Why it changes nothing.
  std::string reason;
};

/// One model of the repository, ready to be served.
struct model_config {
  /// The directory's name in the model repository.
  std::string name;
  /// The version directory.
  std::uint64_t version = 0;
  std::filesystem::path model_json;
  /// Replicas in the cluster.
  setting<std::uint32_t> instances{1, {}};
  /// Where the replicas go, in turns; empty: the devices of the node.
  setting<std::vector<device>> devices;
  /// Requests of this model that wait at most, before 429.
  setting<std::uint32_t> max_queued_requests{1024, {}};
  engine_args engine;
  /// "auto", "vllm" or the directory of a generation_config.json.
  setting<std::string> generation_config{"auto", {}};
  generation_defaults generation;
  std::vector<ineffective_argument> without_effect;
  /// The keys of model.json that its backend declared as its own, as a JSON object.
  std::string own_keys = "{}";
  /// The model as Triton's protocols show it; completed even where there is no config.pbtxt.
  triton_model triton;
};

/// Each version of a model whose backend stands alone, as the node starts it: without engine
/// arguments.
[[nodiscard]] std::vector<model_config> without_engine(const triton_model& model);

/// Fills in what the engine found by measuring, unless a person said it. @pre tokens > 0
/// The value is raised to max_num_seqs, because each running sequence needs a token a step.
[[nodiscard]] engine_args with_measured(engine_args args, std::uint32_t max_num_batched_tokens);

} // namespace troupe::config
