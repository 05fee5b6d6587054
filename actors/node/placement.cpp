#include "actors/node/placement.hpp"

#include "engine/exec/machine.hpp"

#include <algorithm>
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

std::vector<std::string> executor_kinds_of(const std::string& asked,
                                           const config::node_config& node, replica_id replica,
                                           std::uint32_t ranks) {
  const auto& devices = *node.devices;
  std::vector<std::string> kinds;
  for (std::uint32_t rank = 0; rank < ranks; ++rank) {
    const auto slot = std::size_t{value(replica)} * ranks + rank;
    if (!asked.empty())
      kinds.push_back(asked);
    else
      kinds.push_back(devices.empty() ? "cpu" : to_string(devices[slot % devices.size()]));
  }
  return kinds;
}

rank_factory make_rank_factory(std::vector<std::string> kinds, const config::model_config& model) {
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
  if (kinds.size() > 1 && args.cpu_threads.from.kind == config::origin_kind::default_value) {
    const auto all = options.threads == 0 ? engine::usable_cores() : options.threads;
    options.threads = std::max(1U, all / static_cast<unsigned>(kinds.size()));
  }
  return [kinds = std::move(kinds), options = std::move(options)](const rank_place& place) {
    auto own = options;
    own.rank = place.rank;
    own.ranks = place.ranks;
    own.group = place.group;
    return engine::make_executor(kinds[place.rank], std::move(own));
  };
}

std::uint64_t block_hash_key(const config::cluster_config& cluster) {
  if (const auto& file = *cluster.secret_file) {
    std::ifstream in{*file, std::ios::binary};
    return fold(std::string{std::istreambuf_iterator<char>{in}, {}});
  }
  return fold(*cluster.cluster);
}

engine::routing_policy routing_of(const config::cluster_config& cluster) {
  return *cluster.routing == config::routing_policy::round_robin
             ? engine::routing_policy::round_robin
             : engine::routing_policy::least_loaded;
}

} // namespace troupe::actors
