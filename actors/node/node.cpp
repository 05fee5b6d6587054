#include "actors/node/node.hpp"

#include "actors/backend/custom_actor.hpp"
#include "actors/backend/engine_backend.hpp"
#include "actors/backend/hybrid_backend.hpp"
#include "actors/node/replica.hpp"
#include "actors/router/router.hpp"
#include "troupe/base/log.hpp"

#include <ctime>

namespace troupe::actors {

namespace {

constexpr std::chrono::milliseconds view_interval{100};
constexpr std::chrono::seconds status_limit{5};

time_point now() { return std::chrono::steady_clock::now(); }

/// No name of a model has a slash.
std::string route_of(const std::string& name, std::uint64_t version) {
  return fmt::format("{}/{}", name, version);
}

bool stands_alone(const config::model_config& model) {
  return !model.triton.library.empty() && model.triton.base.empty();
}

/// The engine's own backend, with nobody's code around it.
bool is_plain(const config::model_config& model) { return model.triton.library.empty(); }

std::function<std::unique_ptr<backend>()> maker_of(const config::model_config& model,
                                                   const std::shared_ptr<metrics>& numbers) {
  if (is_plain(model))
    return make_engine_backend;
  return [numbers] { return std::make_unique<hybrid_backend>(numbers); };
}

} // namespace

node_state::~node_state() {
  for (auto& [id, replica] : replicas_)
    caf::anon_send_exit(replica.supervisor, caf::exit_reason::user_shutdown);
  for (const auto& [seat, owner] : seats_)
    caf::anon_send_exit(seat, caf::exit_reason::user_shutdown);
  for (auto& model : models_)
    if (model.backend)
      caf::anon_send_exit(model.backend, caf::exit_reason::user_shutdown);
  if (options_.router)
    caf::anon_send_exit(options_.router, caf::exit_reason::user_shutdown);
  for (const auto& edge : options_.edges)
    if (edge.actor)
      caf::anon_send_exit(edge.actor, caf::exit_reason::user_shutdown);
  if (options_.member)
    caf::anon_send_exit(options_.member, caf::exit_reason::user_shutdown);
  if (options_.fate)
    options_.fate->gone = true;
}

void node_state::start_backend(std::size_t index) {
  auto& model = models_[index];
  model.backend_ready = false;
  model.lacking = false;
  const auto& numbers = options_.metrics;
  if (stands_alone(*model.config)) {
    const auto queue =
        std::make_shared<custom_queue>(model.triton, *model.config->max_queued_requests);
    model.door = queue;
    model.backend = self_->spawn<caf::monitored>(
        run_custom, custom_options{.model = *model.config,
                                   .numbers = numbers,
                                   .tell_standing =
                                       [index, node = node_core{self_}](bool all_there) {
                                         post(node,
                                              custom_standing{.model = index, .whole = all_there});
                                       },
                                   .queue = queue});
  } else
    model.backend = self_->spawn<backend_host, caf::detached + caf::monitored>(
        backend_options{.model = *model.config,
                        .make = maker_of(*model.config, numbers),
                        .route = model.route,
                        .brief_streams = is_plain(*model.config)});
  tell(self_, model.backend, attach_atom::value, caf::actor_cast<router_actor>(options_.router));
  ask_without_limit(self_, model.backend, load_atom::value)
      .then([this, index] { on_backend_loaded(index, nullptr); },
            [this, index](const caf::error& e) {
              const auto why = from_caf(e);
              on_backend_loaded(index, &why);
            });
}

void node_state::on_backend_loaded(std::size_t index, const error* why) {
  auto& model = models_[index];
  model.backend_ready = why == nullptr;
  // Without an engine the backends alone can show that the process goes on.
  if (model.backend_ready && replicas_.empty())
    options_.desk->mark_progress(now());
  if (why != nullptr && why->code != errc::peer_down) {
    log_error("model {}: {}", model.config->name, to_string(*why));
    model.backend_failed = true;
    model.note = why->note.empty() ? "its backend gave no reason" : why->note;
  }
  publish();
}

/// A custom model has lost an instance that comes back by itself, or has them all again.
void node_state::take_standing(const custom_standing& told) {
  if (told.model >= models_.size() || !models_[told.model].backend)
    return;
  auto& model = models_[told.model];
  model.backend_ready = told.whole;
  model.lacking = !told.whole;
  publish();
}

void node_state::start_replica(const placed_replica& where) {
  const auto id = options_.ids.next_replica();
  replicas_[id].where = where;
  log_debug("model {} instance {} is replica {}", models_[where.model].config->name, where.instance,
            value(id));
  spawn_replica(id);
}

void node_state::spawn_replica(replica_id id) {
  auto& part = replicas_.at(id);
  const auto& model = *models_[part.where.model].config;
  part.report.status = {.model = model.name,
                        .version = model.version,
                        .replica = id,
                        .node = *options_.self.name,
                        .state = part.restarts == 0 ? "loading" : "restarting",
                        .restarts = part.restarts};
  options_.metrics->open_replica(model.name, std::to_string(value(id)));
  part.supervisor = self_->spawn<caf::monitored>(
      run_replica, replica_options{.model = model,
                                   .route = models_[part.where.model].route,
                                   .id = id,
                                   .node_name = *options_.self.name,
                                   .workers = workers_of(part),
                                   .hash_key = block_hash_key(options_.cluster),
                                   .node = node_core{self_},
                                   .metrics = options_.metrics,
                                   .desk = options_.desk});
  // One that is coming has a route of its own: routers have it before anybody sees it.
  for (const auto& [hub, router] : routers())
    tell(self_, part.supervisor, attach_atom::value, hub, router);
  if (draining_ && !alone())
    tell(self_, part.supervisor, drain_atom::value);
}

/// All routers that may give replicas of this process requests.
std::map<hub_id, router_core> node_state::routers() const {
  auto all = remote_routers_;
  if (options_.router)
    all.emplace(options_.hub, options_.router);
  return all;
}

/// The supervisor's end has ended its cast; the streams that it held end here.
void node_state::lose_replica(replica_id id) {
  auto& part = replicas_.at(id);
  part.restarts = ++part.report.status.restarts;
  part.report.status.state = "restarting";
  const error why{errc::peer_down,
                  fmt::format("replica {} of model '{}' stopped; it is being restarted", value(id),
                              models_[part.where.model].config->name)};
  for (const auto& [hub, router] : routers())
    tell(self_, router, detach_atom::value, id, to_caf(why));
  restart_later("replica:" + std::to_string(value(id)));
}

void node_state::start_router() {
  options_.hub = options_.ids.next_hub();
  options_.router =
      spawn_router(self_->system(), {.hub = options_.hub,
                                     .policy = routing_of(options_.cluster),
                                     .max_streams = *options_.cluster.limits.max_queued_requests,
                                     .resume_limit = *options_.cluster.limits.resume_limit,
                                     .hash_key = block_hash_key(options_.cluster),
                                     .desk = options_.desk,
                                     .metrics = options_.metrics});
  self_->monitor(options_.router);
  if (options_.wire != nullptr)
    options_.wire->publish(router_name, options_.router);
  for (auto& [id, replica] : replicas_)
    tell(self_, replica.supervisor, attach_atom::value, options_.hub, options_.router);
  for (auto& model : models_)
    if (model.backend)
      tell(self_, model.backend, attach_atom::value,
           caf::actor_cast<router_actor>(options_.router));
}

void node_state::start_edge(edge_seat& seat) {
  auto opened = seat.open();
  if (!opened) {
    log_error("the {} edge cannot open again: {}", seat.kind == "edge" ? "HTTP" : seat.kind,
              to_string(opened.error()));
    restart_later(seat.kind);
    return;
  }
  seat.actor = std::move(*opened);
  self_->monitor(seat.actor);
}

void node_state::restart_later(std::string what) {
  options_.metrics->actor_restarted(what.substr(0, what.find(':')));
  const auto delay = backoffs_[what].next(now());
  log_warn("the {} stopped; back in {} ms", what, delay.count());
  tell_later(self_, delay, attach_atom::value, std::move(what));
}

/// Nothing of what was unloaded meanwhile comes back.
void node_state::restart_backend(std::size_t index) {
  if (models_[index].is != stage::gone)
    start_backend(index);
}

void node_state::restart_replica(replica_id id) {
  if (replicas_.contains(id))
    spawn_replica(id);
}

void node_state::restart_now(const std::string& what) {
  if (what == "router")
    start_router();
  else if (what.starts_with("backend:"))
    restart_backend(std::stoul(what.substr(8)));
  else if (what.starts_with("replica:"))
    restart_replica(replica_id{static_cast<std::uint32_t>(std::stoul(what.substr(8)))});
  for (auto& edge : options_.edges)
    if (edge.kind == what)
      start_edge(edge);
  publish();
}

void node_state::on_down(const caf::down_msg& down) {
  if (options_.router && down.source == options_.router->address())
    return restart_later("router");
  if (options_.member && down.source == options_.member->address()) {
    options_.member = nullptr;
    return self_->quit(caf::exit_reason::kill);
  }
  for (auto& edge : options_.edges)
    if (edge.actor && down.source == edge.actor->address()) {
      edge.actor = nullptr;
      return restart_later(edge.kind);
    }
  for (std::size_t i = 0; i < models_.size(); ++i) {
    if (!models_[i].backend || down.source != models_[i].backend->address())
      continue;
    models_[i].backend_ready = false;
    models_[i].lacking = false;
    restart_later("backend:" + std::to_string(i));
  }
  for (auto& [id, replica] : replicas_)
    if (down.source == replica.supervisor->address())
      lose_replica(id);
  std::erase_if(seats_, [&](const auto& one) { return one.seat->address() == down.source; });
  publish();
}

void node_state::take_report(const replica_report& report) {
  const auto found = replicas_.find(report.status.replica);
  if (found == replicas_.end())
    return;
  const bool changed = found->second.report.status.state != report.status.state;
  found->second.report = report;
  found->second.report.status.restarts += found->second.restarts;
  if (changed)
    publish();
}

void node_state::measure_mailboxes() {
  options_.metrics->set_mailbox("node", mailbox_depth(self_));
  for (const auto& model : models_)
    if (model.backend_ready)
      ask(self_, model.backend, status_limit, status_atom::value)
          .then(
              [this](std::uint64_t waiting) {
                options_.metrics->set_mailbox("backend", waiting);
                if (replicas_.empty())
                  options_.desk->mark_progress(now());
              },
              [](const caf::error&) {});
}

void node_state::kill(const std::string& kind) {
  log_warn("fault injection: kill {}", kind);
  if (kind == "node")
    self_->quit(caf::exit_reason::kill);
  else if (kind == "router" && options_.router)
    caf::anon_send_exit(options_.router, caf::exit_reason::kill);
  else if (kind == "backend" && is_front()) {
    for (auto& model : models_)
      if (model.backend)
        caf::anon_send_exit(model.backend, caf::exit_reason::kill);
  } else if (kind == "replica")
    for (auto& [id, replica] : replicas_)
      caf::anon_send_exit(replica.supervisor, caf::exit_reason::kill);
  else if (kind == "scheduler" || kind == "worker" || kind == "rank" || kind == "kv_manager")
    for (auto& [id, replica] : replicas_)
      tell(self_, replica.supervisor, kill_atom::value, kind);
  for (const auto& edge : options_.edges)
    if (edge.kind == kind && edge.actor)
      caf::anon_send_exit(edge.actor, caf::exit_reason::kill);
}

void node_state::start_all() {
  began_ = now();
  self_->set_down_handler([this](const caf::down_msg& down) { on_down(down); });
  if (options_.router)
    self_->monitor(options_.router);
  for (const auto& edge : options_.edges)
    self_->monitor(edge.actor);
  if (options_.member) {
    self_->monitor(options_.member);
    tell(self_, options_.member, attach_atom::value, node_core{self_});
  }
  // place() counts the engine's models from the first; the others stand behind them.
  for (std::size_t i = 0; i < engines_of(options_.cluster); ++i)
    add_model(engine_of(options_.cluster, i), nullptr, stage::serving);
  for (const auto& model : options_.cluster.custom_models)
    for (const auto& version : config::without_engine(model))
      add_model(version, nullptr, stage::serving);
  for (std::size_t i = 0; i < models_.size(); ++i) {
    // Every process of the cluster calls them the same.
    const auto& [name, version] = std::pair{models_[i].config->name, models_[i].config->version};
    models_[i].route =
        version == models_[i].triton->versions.back() ? name : route_of(name, version);
    if (is_front())
      start_backend(i);
  }
  for (const auto& where : place(options_.cluster))
    if (*options_.cluster.nodes[where.node()].name == *options_.self.name)
      start_replica(where);
  publish();
  tell_later(self_, view_interval, tick_atom::value);
}

void node_state::tick() {
  tell_later(self_, view_interval, tick_atom::value);
  measure_mailboxes();
  watch_drain();
  go_on_changing();
  publish();
}

node_core::behavior_type node_state::make_behavior(node_options options) {
  options_ = std::move(options);
  start_all();
  return {
      [this](const replica_report& report) { take_report(report); },
      [this](const custom_standing& told) { take_standing(told); },
      [this](tick_atom) { tick(); },
      [this](kill_atom, const std::string& kind) { kill(kind); },
      [this](attach_atom, const std::string& what) { restart_now(what); },
      [this](attach_atom, const loaded_model_ptr& loaded) { return load(loaded); },
      [this](detach_atom, const std::string& model) { return unload(model); },
      [this](const roster_view_ptr& roster) { take_roster(roster); },
      [this](drain_atom, const drain_order& order) { take_order(order); },
      [this](drain_atom) { return drain(); },
      [this](cancel_atom) { return cut(); },
      [this](const rank_order& order) { return seat(order); },
  };
}

node_core::behavior_type run_node(node_core::stateful_pointer<node_state> self,
                                  node_options options) {
  return state(self).make_behavior(std::move(options));
}

} // namespace troupe::actors
