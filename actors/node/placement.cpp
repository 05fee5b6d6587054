#include "actors/node/placement.hpp"

#include "actors/process/hosted.hpp"
#include "actors/worker/process_executor.hpp"
#include "engine/exec/machine.hpp"
#include "troupe/base/log.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>

namespace troupe::actors {

namespace {

std::string dtype_name(config::dtype_choice choice) {
  switch (choice) {
  case config::dtype_choice::bfloat16:
    return "bfloat16";
  case config::dtype_choice::float16:
    return "float16";
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

using slot_list = std::vector<device_slot>;

/// Every device of every node; a cluster without devices counts as one CPU a node.
slot_list slots_of(const config::cluster_config& cluster) {
  slot_list slots;
  for (std::size_t i = 0; i < cluster.nodes.size(); ++i)
    for (const auto& device : *cluster.nodes[i].devices)
      slots.push_back({i, device});
  if (slots.empty())
    for (std::size_t i = 0; i < cluster.nodes.size(); ++i)
      slots.push_back({i, {}});
  return slots;
}

/// The devices that a model asks for, each on the nodes that have it, or else on all that have any.
slot_list slots_of(const config::model_config& model, const slot_list& all) {
  slot_list slots;
  for (const auto& device : *model.devices) {
    const auto before = slots.size();
    std::copy_if(all.begin(), all.end(), std::back_inserter(slots),
                 [&](const device_slot& slot) { return slot.device == device; });
    if (slots.size() > before)
      continue;
    for (const auto& slot : all)
      if (slots.size() == before || slots.back().node != slot.node)
        slots.push_back({slot.node, device});
  }
  return slots;
}

} // namespace

std::size_t engines_of(const config::cluster_config& cluster) {
  return cluster.models.size() + cluster.older_versions.size();
}

const config::model_config& engine_of(const config::cluster_config& cluster, std::size_t index) {
  const auto first = cluster.models.size();
  return index < first ? cluster.models[index] : cluster.older_versions[index - first];
}

std::vector<placed_replica> place(const config::cluster_config& cluster) {
  const auto all = slots_of(cluster);
  std::vector<placed_replica> out;
  std::size_t next = 0;
  for (std::size_t model = 0; model < engines_of(cluster); ++model) {
    const auto& config = engine_of(cluster, model);
    const auto own = slots_of(config, all);
    const auto& slots = own.empty() ? all : own;
    std::size_t next_own = 0;
    auto& turn = own.empty() ? next : next_own;
    for (std::uint32_t instance = 0; instance < *config.instances; ++instance) {
      auto& made = out.emplace_back(placed_replica{model, instance, {}});
      for (std::uint32_t rank = 0; rank < *config.engine.tensor_parallel_size; ++rank)
        made.ranks.push_back(slots[turn++ % slots.size()]);
    }
  }
  return out;
}

std::string executor_kind_of(const std::string& asked, const config::device& device) {
  return asked.empty() ? to_string(device) : asked;
}

std::uint64_t swap_bytes_of(std::optional<double> swap_space, std::string_view kind) {
  const double gib = swap_space.value_or(kind.starts_with("cuda") ? 4 : 0);
  return static_cast<std::uint64_t>(gib * (1ULL << 30U));
}

rank_factory make_rank_factory(rank_site site, const config::model_config& model) {
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
      .cache_dir = site.cache_dir,
  };
  // Without chunks a prompt is one step, however long that takes.
  if (!*args.enable_chunked_prefill && !options.max_num_batched_tokens && options.max_model_len > 0)
    options.max_num_batched_tokens = std::max(options.max_model_len, options.max_num_seqs);
  const auto here = std::count_if(site.kinds.begin(), site.kinds.end(),
                                  [](const auto& kind) { return !kind.empty(); });
  if (here > 1 && args.cpu_threads.from.kind == config::origin_kind::default_value) {
    const auto all = options.threads == 0 ? engine::usable_cores() : options.threads;
    options.threads = std::max(1U, all / static_cast<unsigned>(here));
  }
  return [site = std::move(site), options = std::move(options), swap_space = *args.swap_space](
             const rank_place& place) -> result<std::unique_ptr<engine::executor>> {
    auto own = options;
    own.tenure = site.line->next(place.rank);
    own.rank = place.rank;
    own.ranks = place.ranks;
    own.group = place.group;
    const auto& kind = site.kinds[place.rank];
    own.swap_bytes = swap_bytes_of(swap_space, kind);
    auto made = engine::make_executor(kind, own);
    if (made || !engine::is_lost(kind))
      return made;
    const auto& why = made.error();
    if (!can_host())
      return fail(why.code, why.note + "; start the program again");
    log_warn("{}: what runs on it gets one of its own", why.note);
    return make_process_executor(kind, own);
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
  switch (*cluster.routing) {
  case config::routing_policy::round_robin:
    return engine::routing_policy::round_robin;
  case config::routing_policy::prefix:
    return engine::routing_policy::prefix;
  case config::routing_policy::least_loaded:
    break;
  }
  return engine::routing_policy::least_loaded;
}

} // namespace troupe::actors
