#include "actors/node/placement.hpp"

#include <fstream>
#include <iterator>

namespace troupe::actors {

namespace {

std::string dtype_name(config::dtype_choice choice) {
  switch (choice) {
  case config::dtype_choice::bfloat16:
    return "bfloat16";
  case config::dtype_choice::float32:
    return "float32";
  case config::dtype_choice::auto_detect:
    break;
  }
  return "auto";
}

std::string format_name(config::load_format format) {
  switch (format) {
  case config::load_format::safetensors:
    return "safetensors";
  case config::load_format::dummy:
    return "dummy";
  case config::load_format::auto_detect:
    break;
  }
  return "auto";
}

/// FNV-1a: spreads the secret over the key. The key protects nothing by itself.
std::uint64_t fold(std::string_view text) {
  std::uint64_t hash = 0xCBF29CE484222325U;
  for (const unsigned char c : text)
    hash = (hash ^ c) * 0x100000001B3U;
  return hash;
}

} // namespace

std::vector<placed_replica> place(const config::cluster_config& cluster) {
  std::vector<device_slot> slots;
  for (std::size_t i = 0; i < cluster.nodes.size(); ++i)
    for (const auto& device : *cluster.nodes[i].devices)
      slots.push_back({i, device});
  if (slots.empty())
    for (std::size_t i = 0; i < cluster.nodes.size(); ++i)
      slots.push_back({i, {}});
  std::vector<placed_replica> out;
  std::size_t next = 0;
  for (std::size_t model = 0; model < cluster.models.size(); ++model) {
    const auto& config = cluster.models[model];
    for (std::uint32_t instance = 0; instance < *config.instances; ++instance) {
      auto& made = out.emplace_back(placed_replica{model, instance, {}});
      for (std::uint32_t rank = 0; rank < *config.engine.tensor_parallel_size; ++rank)
        made.ranks.push_back(slots[next++ % slots.size()]);
    }
  }
  return out;
}

std::string executor_kind_of(const std::string& asked, const config::device& device) {
  return asked.empty() ? to_string(device) : asked;
}

executor_factory make_executor_factory(std::string kind, const config::model_config& model) {
  const auto& args = model.engine;
  engine::executor_options options{
      .model_dir = *args.model,
      .dtype = dtype_name(*args.dtype),
      .load_format = format_name(*args.load_format),
      .seed = *args.seed,
      .block_size = *args.block_size,
      .max_model_len = args.max_model_len->value_or(0),
      .max_num_seqs = *args.max_num_seqs,
      .max_num_batched_tokens = *args.max_num_batched_tokens,
      .kv_cache_bytes = *args.kv_cache_memory_bytes,
      .num_blocks = *args.num_gpu_blocks_override,
      .gpu_memory_utilization = *args.gpu_memory_utilization,
      .deterministic = *args.deterministic,
      .threads = *args.cpu_threads,
  };
  // Without chunks a prompt is one step, however long that takes.
  if (!*args.enable_chunked_prefill && !options.max_num_batched_tokens && options.max_model_len > 0)
    options.max_num_batched_tokens = std::max(options.max_model_len, options.max_num_seqs);
  return [kind = std::move(kind), options = std::move(options)] {
    return engine::make_executor(kind, options);
  };
}

std::uint64_t block_hash_key(const config::cluster_config& cluster) {
  if (const auto& file = *cluster.secret_file) {
    std::ifstream in{*file, std::ios::binary};
    std::string secret{std::istreambuf_iterator<char>{in}, {}};
    // As the wire reads it: editors leave line ends behind.
    while (!secret.empty() && (secret.back() == '\n' || secret.back() == '\r'))
      secret.pop_back();
    return fold(secret);
  }
  return fold(*cluster.cluster);
}

engine::routing_policy routing_of(const config::cluster_config& cluster) {
  return *cluster.routing == config::routing_policy::round_robin
             ? engine::routing_policy::round_robin
             : engine::routing_policy::least_loaded;
}

} // namespace troupe::actors
