#include "troupe/actors/forecast.hpp"

#include "actors/node/placement.hpp"
#include "engine/exec/machine.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <map>

namespace troupe::actors {

namespace {

std::string mib(std::uint64_t bytes) {
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1U << 20U));
}

std::string words_of(const engine::memory_forecast& told) {
  const std::uint64_t tokens = std::uint64_t{told.num_blocks} * told.block_size;
  std::string text = fmt::format(
      "{} KV blocks of {} tokens ({} tokens, {}: {:.1f} sequences of {}), weights {}, working "
      "memory {}, in {}",
      told.num_blocks, told.block_size, tokens, mib(told.kv_bytes()),
      static_cast<double>(tokens) / std::max(1U, told.max_model_len), told.max_model_len,
      mib(told.weight_bytes), mib(told.work_bytes), told.dtype);
  if (told.total_bytes > 0)
    text += fmt::format("; {}: {} free", told.device, mib(told.free_bytes));
  return text;
}

/// Of the host memory that a rank of so many would take from its first preemption on.
std::string words_of_swap(std::uint64_t asked, std::uint32_t ranks) {
  if (asked == 0)
    return {};
  const auto most = engine::swap_bytes_within(asked, ranks, engine::available_memory_bytes());
  std::string text = fmt::format("; {} of host memory for preempted sequences", mib(most));
  if (most < asked)
    text +=
        fmt::format(" ({} are asked for: no more than half of what is free is taken)", mib(asked));
  return text;
}

/// The forecasts of one replica; `promised` is what earlier ones take of each device.
class replica_forecast {
public:
  replica_forecast(const config::cluster_config& cluster, const placed_replica& replica)
      : model_{engine_of(cluster, replica.model)}, replica_{replica},
        group_{replica.ranks.size() == 1
                   ? decltype(group_){nullptr}
                   : engine::make_local_group(static_cast<std::uint32_t>(replica.ranks.size()))} {
    rank_site site{.kinds = {}, .cache_dir = {}, .line = std::make_shared<succession>()};
    for (const auto& slot : replica.ranks)
      site.kinds.push_back(to_string(slot.device));
    make_ = make_rank_factory(std::move(site), model_);
  }

  rank_forecast of(std::uint32_t rank, std::map<std::string, std::uint64_t>& promised) const {
    const auto device = to_string(replica_.ranks[rank].device);
    rank_forecast made{.model = model_.name, .where = where(rank), .words = {}, .wrong = {}};
    const auto run = make_({.rank = rank,
                            .ranks = static_cast<std::uint32_t>(replica_.ranks.size()),
                            .group = group_[rank]});
    if (!run) {
      made.words = "cannot be told on this machine: " + run.error().note;
      return made;
    }
    const auto told = (*run)->foresee(promised[device]);
    if (!told) {
      made.words = "does not load: " + told.error().note;
      made.wrong = told.error();
      return made;
    }
    made.words = words_of(*told);
    made.words += words_of_swap(swap_bytes_of(*model_.engine.swap_space, device),
                                static_cast<std::uint32_t>(replica_.ranks.size()));
    promised[device] += told->weight_bytes + told->work_bytes;
    // A CPU's untouched blocks cost address space only.
    if (replica_.ranks[rank].device.kind != config::device_kind::cpu)
      promised[device] += told->kv_bytes();
    return made;
  }

private:
  [[nodiscard]] std::string where(std::uint32_t rank) const {
    const auto versions = model_.triton.versions.size();
    return fmt::format("{}{}/{}{} on {}", model_.name,
                       versions > 1 ? fmt::format(" version {}", model_.version) : "",
                       replica_.instance,
                       replica_.ranks.size() == 1 ? "" : fmt::format(" rank {}", rank),
                       to_string(replica_.ranks[rank].device));
  }

  const config::model_config& model_;
  const placed_replica& replica_;
  std::vector<std::shared_ptr<engine::collective>> group_;
  rank_factory make_;
};

} // namespace

std::vector<rank_forecast>
forecast_memory(const config::cluster_config& cluster,
                const std::function<bool(const config::node_config&)>& here) {
  std::vector<rank_forecast> all;
  std::map<std::string, std::uint64_t> promised;
  for (const auto& replica : place(cluster)) {
    const replica_forecast one{cluster, replica};
    for (std::uint32_t rank = 0; rank < replica.ranks.size(); ++rank)
      if (here(cluster.nodes[replica.ranks[rank].node]))
        all.push_back(one.of(rank, promised));
  }
  return all;
}

} // namespace troupe::actors
