// The part of a node that has the ranks of one replica run in several processes.
#include "actors/node/node.hpp"
#include "troupe/base/log.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace troupe::actors {

namespace {

/// The node there answers at once, or its end does.
constexpr std::chrono::seconds seat_limit{30};
constexpr std::size_t ranks_max = 64;

/// The executors of the ranks of one node, by rank; an empty text for a rank of another.
std::vector<std::string> kinds_on(const std::string& node, const std::string& asked,
                                  const rank_order& whole) {
  std::vector<std::string> kinds(whole.devices.size());
  for (std::size_t rank = 0; rank < kinds.size(); ++rank)
    if (whole.nodes[rank] == node)
      kinds[rank] = asked.empty() ? whole.devices[rank] : asked;
  return kinds;
}

result<void> check(const rank_order& order) {
  if (order.nodes.size() <= ranks_max && order.devices.size() == order.nodes.size() &&
      order.rank < order.nodes.size() && order.owner)
    return {};
  return fail(errc::invalid_argument,
              fmt::format("an order for rank {} of model '{}' names {} nodes and {} devices",
                          order.rank, order.model, order.nodes.size(), order.devices.size()));
}

} // namespace

replica_workers node_state::workers_of(const replica_part& part) const {
  const auto& model = *models_[part.where.model].config;
  rank_order whole{.model = model.name, .version = model.version};
  for (const auto& slot : part.where.ranks) {
    whole.nodes.push_back(*options_.cluster.nodes[slot.node].name);
    whole.devices.push_back(to_string(slot.device));
  }
  const auto progress = [tell_host = options_.start.progress, name = model.name,
                         stage = std::string{}](double share, std::string_view what) mutable {
    if (tell_host)
      tell_host(name, share, what);
    if (std::exchange(stage, std::string{what}) != what)
      log_debug("model {}: {} ({:.0f} %)", name, what, 100 * share);
  };
  auto kinds = kinds_on(*options_.self.name, options_.start.executor, whole);
  return {.make = make_rank_factory(
              {std::move(kinds), *options_.cluster.cache_directory, part.line}, model),
          .progress = progress,
          .ranks = static_cast<std::uint32_t>(part.where.ranks.size()),
          .whole = std::move(whole),
          .node = node_core{self_}};
}

caf::result<rank_seat_actor> node_state::seat(const rank_order& order) {
  if (auto sound = check(order); !sound)
    return to_caf(sound.error());
  if (order.nodes[order.rank] != *options_.self.name)
    return seat_elsewhere(order);
  auto seated = seat_here(order);
  if (!seated)
    return to_caf(seated.error());
  return *seated;
}

result<rank_seat_actor> node_state::seat_here(const rank_order& order) {
  const auto model = std::find_if(models_.begin(), models_.end(), [&](const auto& known) {
    return known.config->name == order.model && known.config->version == order.version;
  });
  if (model == models_.end())
    return fail(errc::not_found,
                fmt::format("node '{}' has no model '{}' version {}; give all nodes the "
                            "same cluster file",
                            *options_.self.name, order.model, order.version));
  if (draining_)
    return fail(errc::draining, fmt::format("node '{}' is draining", *options_.self.name));
  auto kinds = kinds_on(*options_.self.name, options_.start.executor, order);
  log_info("model {}: {} is here", order.model, names_of_ranks(order)[order.rank]);
  rank_seat_options how{.make =
                            make_rank_factory({std::move(kinds), *options_.cluster.cache_directory,
                                               std::make_shared<succession>()},
                                              *model->config),
                        .rank = order.rank,
                        .names = names_of_ranks(order),
                        .owner = order.owner};
  const auto seated = self_->spawn<caf::monitored>(rank_seat, std::move(how));
  seats_.push_back({seated, order.owner});
  return seated;
}

caf::result<rank_seat_actor> node_state::seat_elsewhere(const rank_order& order) {
  const auto& name = order.nodes[order.rank];
  for (const auto& member : roster_->members) {
    if (member.name != name || !member.up() || !member.card)
      continue;
    auto seated = self_->make_response_promise<rank_seat_actor>();
    ask(self_, member.card->node, seat_limit, order)
        .then([seated](const rank_seat_actor& there) mutable { seated.deliver(there); },
              [seated](const caf::error& why) mutable { seated.deliver(why); });
    return seated;
  }
  return to_caf({errc::peer_down, fmt::format("node '{}' is not there", name)});
}

} // namespace troupe::actors
