#include "troupe/config/engine_arguments.hpp"

namespace troupe::config {

namespace {

using enum argument_kind;

constexpr double most_tokens = 1 << 28;
constexpr double most_bytes = 1LL << 50;

constexpr engine_argument honoured[] = {
    {"model", string, 0, 0, "the version's own directory",
     "directory with config.json, tokenizer and weights, relative to the file that names it; or "
     "the "
     "name of a model in the local cache of Hugging Face"},
    {"revision", string, 0, 0, "main", "which snapshot of that cache"},
    {"tokenizer", string, 0, 0, "model", "directory with tokenizer.json"},
    {"served_model_name", string_or_list, 0, 0, "the model's name in the repository",
     "the names that clients use"},
    {"chat_template", string, 0, 0, "the model's own", "a Jinja template or a file that holds one"},
    {"dtype", string, 0, 0, "auto",
     "the type to compute in: auto, bfloat16, float16 (on GPUs) or float32"},
    {"load_format", string, 0, 0, "auto", "auto, safetensors, or dummy for random weights"},
    {"max_model_len", integer, 2, most_tokens, "max_position_embeddings",
     "tokens of prompt and answer together"},
    {"max_num_seqs", integer, 1, 4096, "64", "sequences that run at once"},
    {"max_num_batched_tokens", integer, 1, most_tokens, "measured", "tokens of one step"},
    {"block_size", integer, 8, 128, "16", "tokens of one KV block: 8, 16, 32, 64 or 128"},
    {"kv_cache_memory_bytes", integer, 1, most_bytes,
     "max_num_seqs full sequences, at most 1/4 of the free memory", "bytes of the KV cache"},
    {"num_gpu_blocks_override", integer, 1, 1 << 28, "from kv_cache_memory_bytes",
     "the number of KV blocks itself"},
    {"gpu_memory_utilization", number, 0.01, 1, "0.9",
     "the share of a GPU's memory for weights and KV cache; a CPU goes by kv_cache_memory_bytes"},
    {"swap_space", number, 0, 1e6, "4 on GPUs, else 0",
     "GiB of host memory of each rank for the KV blocks of preempted sequences; what does not fit "
     "is computed again"},
    {"deterministic", boolean, 0, 0, "false",
     "the same bits alone and in any batch on a GPU too, slower (Troupe's own)"},
    {"enable_prefix_caching", boolean, 0, 0, "true", "reuse the KV blocks of equal prefixes"},
    {"enable_chunked_prefill", boolean, 0, 0, "true", "split long prompts over steps"},
    {"long_prefill_token_threshold", integer, 0, most_tokens, "0",
     "tokens of one prompt in one step at most; 0 is no limit"},
    {"scheduling_policy", string, 0, 0, "fcfs", "fcfs or priority"},
    {"seed", integer, 0, 9.0e18, "0", "seed of dummy weights and of requests' own seeds"},
    {"tensor_parallel_size", integer, 1, 64, "1", "ranks of one replica: 1, 2, 4 or 8"},
    {"cpu_threads", integer, 1, 1024, "cpu.threads of the cluster file",
     "threads of one CPU rank (Troupe's own)"},
    {"generation_config", string, 0, 0, "auto",
     "auto: the model's file; vllm: none; or a directory with generation_config.json"},
    {"override_generation_config", object, 0, 0, "{}", "beats generation_config.json, key by key"},
};

} // namespace

std::span<const engine_argument> honoured_arguments() noexcept { return honoured; }

} // namespace troupe::config
