// The part of a node that sees: the front desk's view, the card for the others, and theirs.
#include "actors/node/node.hpp"
#include "troupe/base/log.hpp"

#include <algorithm>
#include <tuple>
#include <utility>

namespace troupe::actors {

namespace {

time_point now() { return std::chrono::steady_clock::now(); }

std::uint64_t seconds_since(time_point begin) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(now() - begin).count());
}

node_status status_of(const member_view& member) {
  const auto round_trip =
      std::chrono::duration_cast<std::chrono::microseconds>(member.wire.round_trip);
  return {.name = member.name,
          .address = net::to_string(member.where),
          .state = member.state_text(),
          .note = member.note,
          .uptime_s = member.up() && member.card ? member.card->uptime_s : 0,
          .since_s = seconds_since(member.since),
          .lanes = member.wire.lanes,
          .round_trip_us = static_cast<std::uint64_t>(round_trip.count()),
          .bytes_sent = member.wire.bytes_sent,
          .bytes_received = member.wire.bytes_received};
}

/// Puts models in the order of their names and versions, and chooses one version of each.
void choose_versions(std::vector<model_entry>& models) {
  std::stable_sort(models.begin(), models.end(), [](const auto& a, const auto& b) {
    return std::tie(a.name, a.version) < std::tie(b.name, b.version);
  });
  const auto rank = [](const model_entry& m) {
    return m.state == "ready" ? 2 : m.state == "unloading" ? 0 : 1;
  };
  model_entry* best = nullptr;
  for (auto& m : models) {
    const bool better = best == nullptr || best->name != m.name || rank(m) >= rank(*best);
    if (better && best != nullptr && best->name == m.name)
      best->chosen = false;
    m.chosen = better;
    best = better ? &m : best;
  }
}

} // namespace

/// What is known of the replicas of a model, here and in processes that are up.
std::vector<const replica_report*> node_state::reports_of(std::size_t model) const {
  std::vector<const replica_report*> out;
  for (const auto& [id, replica] : replicas_)
    if (replica.where.model == model)
      out.push_back(&replica.report);
  for (const auto& member : roster_->members)
    if (is_front() && member.up() && member.card)
      for (const auto& report : member.card->replicas)
        if (report.status.model == models_[model].config->name &&
            report.status.version == models_[model].config->version)
          out.push_back(&report);
  return out;
}

/// All replicas of this process must be ready.
node_state::standing node_state::stand_alone(std::size_t index) const {
  const auto& model = models_[index];
  if (model.backend_failed)
    return {"failed", model.note};
  if (model.lacking)
    return {"restarting", "a process of its backend has ended and is started again"};
  standing worst{model.backend_ready || !is_front() ? "ready" : "loading", ""};
  for (const auto* report : reports_of(index)) {
    const auto& state = report->status.state;
    if (worst.note.empty())
      worst.note = report->note;
    if (state == "failed" || (state != "ready" && worst.state == "ready"))
      worst.state = state;
  }
  return worst;
}

/// One replica that is ready is enough, wherever it is.
node_state::standing node_state::stand_in_cluster(std::size_t index) const {
  const auto& model = models_[index];
  if (model.backend_failed)
    return {"failed", model.note};
  const auto reports = reports_of(index);
  if (engines_of(options_.cluster) <= index)
    return stand_alone(index);
  const auto has = [&](std::string_view state) {
    return std::any_of(reports.begin(), reports.end(),
                       [&](const replica_report* r) { return r->status.state == state; });
  };
  if (has("ready"))
    return {model.backend_ready ? "ready" : "loading", ""};
  for (const auto& [id, replica] : replicas_)
    if (replica.where.model == index && replica.report.status.state == "failed")
      return {"failed", replica.report.note};
  const auto missing = who_is_missing(index);
  return {has("restarting") || (model.served && !missing.empty()) ? "restarting" : "loading",
          missing.empty() ? "no replica is ready yet" : missing};
}

/// The nodes that should serve a model and are not up, with the reason.
std::string node_state::who_is_missing(std::size_t index) const {
  std::set<std::string> names;
  for (const auto& where : place(options_.cluster))
    if (where.model == index)
      for (const auto& rank : where.ranks)
        names.insert(*options_.cluster.nodes[rank.node].name);
  std::string out;
  for (const auto& member : roster_->members)
    if (names.contains(member.name) && !member.up())
      out += fmt::format("{}node '{}' is {}{}{}", out.empty() ? "" : "; ", member.name,
                         member.state_text(), member.note.empty() ? "" : ": ", member.note);
  return out;
}

model_entry node_state::entry_of(std::size_t index) const {
  const auto& model = models_[index];
  auto stand = alone() || !is_front() ? stand_alone(index) : stand_in_cluster(index);
  if (model.is == stage::leaving)
    stand = {"unloading", "it answers what it has and takes nothing new"};
  model_entry entry{.name = model.config->name,
                    .version = model.config->version,
                    .served_names = *model.config->engine.served_model_name,
                    .backend = caf::actor_cast<backend_actor>(model.backend),
                    .created = model.created,
                    .state = std::move(stand.state),
                    .note = std::move(stand.note),
                    .triton = model.triton};
  entry.door = model.door;
  entry.max_model_len = model.loaded.max_model_len;
  entry.description = model.loaded;
  entry.loading = model.loading;
  entry.route = model.route;
  entry.lease = model.lease;
  return entry;
}

/// Keeps what the replicas that are up say of their model.
void node_state::learn(std::size_t index) {
  auto& model = models_[index];
  for (const auto* report : reports_of(index)) {
    model.served = model.served || report->status.state == "ready";
    if (report->loaded.max_model_len == 0)
      continue;
    model.loaded = report->loaded;
    model.loading = report->loading;
  }
}

node_status node_state::own_status() const {
  const auto& address = *options_.self.address;
  const auto uptime = seconds_since(began_);
  return {.name = *options_.self.name,
          .address = address && !alone() ? config::to_string(*address) : "",
          .state = options_.fate->drained ? "drained"
                   : draining_            ? "draining"
                                          : "up",
          .note = "",
          .uptime_s = uptime,
          .since_s = uptime,
          .lanes = ""};
}

cluster_status node_state::status() const {
  cluster_status out{.cluster = *options_.cluster.cluster, .nodes = {own_status()}, .replicas = {}};
  for (const auto& [id, replica] : replicas_)
    out.replicas.push_back(replica.report.status);
  for (const auto& member : roster_->members) {
    out.nodes.push_back(status_of(member));
    if (!member.card)
      continue;
    for (const auto& report : member.card->replicas) {
      auto& row = out.replicas.emplace_back(report.status);
      if (!member.up())
        row.state = "down";
    }
  }
  return out;
}

node_card node_state::own_card() const {
  node_card card;
  const auto own = own_status();
  card.name = own.name;
  card.address = own.address;
  card.state = own.state;
  card.incarnation = options_.ids.incarnation();
  card.uptime_s = own.uptime_s;
  if (options_.router) {
    card.hub = options_.hub;
    card.router = options_.router;
  }
  card.node = node_core{self_};
  for (const auto& [id, replica] : replicas_)
    card.replicas.push_back(replica.report);
  return card;
}

bool node_state::serves_here(std::size_t index) const {
  return is_front() || std::any_of(replicas_.begin(), replicas_.end(), [&](const auto& item) {
           return item.second.where.model == index;
         });
}

/// Of two generations of one version the one that serves.
bool node_state::is_seen(const model_part& model) const {
  const auto replaces = [&](const model_part& other) {
    return other.is == stage::serving && other.config->name == model.config->name &&
           other.config->version == model.config->version;
  };
  return model.is == stage::serving ||
         (model.is == stage::leaving && std::none_of(models_.begin(), models_.end(), replaces));
}

void node_state::publish() {
  auto next = std::make_shared<front_view>();
  next->draining = draining_;
  next->complete = true;
  if (options_.router)
    next->router = caf::actor_cast<router_actor>(options_.router);
  next->status = status();
  next->unloaded = unloaded_;
  for (std::size_t i = 0; i < models_.size(); ++i) {
    learn(i);
    if (!serves_here(i) || !is_seen(models_[i]))
      continue;
    next->models.push_back(entry_of(i));
    if (is_front())
      options_.metrics->open_inference(models_[i].config->name,
                                       std::to_string(models_[i].config->version));
  }
  choose_versions(next->models);
  options_.desk->publish(std::move(next));
  if (options_.member)
    tell(self_, options_.member, own_atom::value, own_card());
}

void node_state::take_roster(roster_view_ptr roster) {
  roster_ = std::move(roster);
  if (roster_->end) {
    const std::lock_guard lock{options_.fate->mutex};
    options_.fate->why = *roster_->end;
    return self_->quit(caf::exit_reason::kill);
  }
  std::map<hub_id, router_core> fronts;
  for (const auto& member : roster_->members) {
    if (!member.up() || !member.card)
      continue;
    if (member.card->router)
      fronts.emplace(member.card->hub, member.card->router);
    for (const auto& report : member.card->replicas)
      if (report.answers && report.status.state == "ready")
        options_.desk->mark_progress(now());
  }
  for (const auto& [hub, router] : fronts) {
    const auto known = remote_routers_.find(hub);
    if (known == remote_routers_.end() || !same_proxy(known->second, router))
      for (const auto& [id, replica] : replicas_)
        tell(self_, replica.supervisor, attach_atom::value, hub, router);
  }
  remote_routers_ = std::move(fronts);
  measure_remote();
  publish();
}

/// A stage has no edge: its schedulers' numbers are read at the fronts. Of a node that is down the
/// sums stay and nothing runs.
void node_state::measure_remote() {
  if (!is_front())
    return;
  for (const auto& member : roster_->members) {
    if (!member.card)
      continue;
    for (const auto& report : member.card->replicas) {
      auto stats = report.stats;
      if (!member.up())
        stats.running = stats.waiting = stats.steps_in_flight = stats.blocks_used = 0;
      const auto engine = std::to_string(value(report.status.replica));
      options_.metrics->open_replica(report.status.model, engine);
      options_.metrics->set_scheduler(report.status.model, engine, stats);
    }
  }
}

} // namespace troupe::actors
