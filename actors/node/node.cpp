#include "actors/node/node.hpp"

#include "actors/backend/engine_backend.hpp"
#include "actors/node/placement.hpp"
#include "actors/node/replica.hpp"
#include "actors/router/router.hpp"
#include "troupe/base/log.hpp"

#include <algorithm>
#include <ctime>

namespace troupe::actors {

namespace {

constexpr std::chrono::milliseconds view_interval{100};
constexpr std::chrono::hours load_limit{24};
constexpr std::chrono::seconds drain_limit{5};

time_point now() { return std::chrono::steady_clock::now(); }

} // namespace

node_state::~node_state() {
  for (auto& [id, replica] : replicas_)
    caf::anon_send_exit(replica.supervisor, caf::exit_reason::user_shutdown);
  for (auto& model : models_)
    caf::anon_send_exit(model.backend, caf::exit_reason::user_shutdown);
  caf::anon_send_exit(options_.router, caf::exit_reason::user_shutdown);
  if (options_.edge)
    caf::anon_send_exit(options_.edge, caf::exit_reason::user_shutdown);
  if (options_.gone)
    *options_.gone = true;
}

void node_state::start_backend(std::size_t index) {
  auto& model = models_[index];
  model.backend_ready = false;
  model.backend = self_->spawn<caf::detached + caf::monitored>(
      run_backend,
      backend_options{.model = model.config, .make = [] { return make_engine_backend(); }});
  tell(self_, model.backend, attach_atom::value, caf::actor_cast<router_actor>(options_.router));
  ask(self_, model.backend, load_limit, load_atom::value)
      .then([this, index] { on_backend_loaded(index, nullptr); },
            [this, index](const caf::error& e) {
              const auto why = from_caf(e);
              on_backend_loaded(index, &why);
            });
}

void node_state::on_backend_loaded(std::size_t index, const error* why) {
  auto& model = models_[index];
  model.backend_ready = why == nullptr;
  if (why != nullptr && why->code != errc::peer_down) {
    log_error("model {}: {}", model.config.name, to_string(*why));
    model.state = "failed";
    model.note = why->note;
  }
  publish();
}

void node_state::start_replica(std::size_t index, std::uint32_t instance) {
  const auto id = replica_id{static_cast<std::uint32_t>(replicas_.size())};
  replicas_[id].model = index;
  log_debug("model {} instance {} is replica {}", models_[index].config.name, instance, value(id));
  spawn_replica(id);
}

void node_state::spawn_replica(replica_id id) {
  auto& part = replicas_.at(id);
  const auto& model = models_[part.model].config;
  const auto progress = [tell_host = options_.start.progress,
                         name = model.name](double share, std::string_view what) {
    if (tell_host)
      tell_host(name, share, what);
  };
  const auto ranks = *model.engine.tensor_parallel_size;
  auto kinds = executor_kinds_of(options_.start.executor, options_.self, id, ranks);
  part.report.status = {.model = model.name,
                        .replica = id,
                        .node = *options_.self.name,
                        .state = part.restarts == 0 ? "loading" : "restarting",
                        .restarts = part.restarts};
  part.supervisor = self_->spawn<caf::monitored>(
      run_replica, replica_options{.model = model,
                                   .id = id,
                                   .node_name = *options_.self.name,
                                   .workers = {.make = make_rank_factory(std::move(kinds), model),
                                               .progress = progress,
                                               .ranks = ranks},
                                   .hash_key = block_hash_key(options_.cluster),
                                   .node = node_core{self_},
                                   .metrics = options_.metrics,
                                   .desk = options_.desk});
  tell(self_, part.supervisor, attach_atom::value, hub_id{next_hub_ - 1}, options_.router);
}

/// The supervisor's end has ended its cast; the streams that it held end here.
void node_state::lose_replica(replica_id id) {
  auto& part = replicas_.at(id);
  part.restarts = ++part.report.status.restarts;
  part.report.status.state = "restarting";
  tell(self_, options_.router, detach_atom::value, id,
       to_caf(
           {errc::peer_down, fmt::format("replica {} of model '{}' stopped; it is being restarted",
                                         value(id), models_[part.model].config.name)}));
  restart_later("replica:" + std::to_string(value(id)));
}

void node_state::start_router() {
  const auto hub = hub_id{next_hub_++};
  options_.router =
      spawn_router(self_->system(), {.hub = hub,
                                     .policy = routing_of(options_.cluster),
                                     .max_streams = *options_.cluster.limits.max_queued_requests,
                                     .desk = options_.desk,
                                     .metrics = options_.metrics});
  self_->monitor(options_.router);
  for (auto& [id, replica] : replicas_)
    tell(self_, replica.supervisor, attach_atom::value, hub, options_.router);
  for (auto& model : models_)
    tell(self_, model.backend, attach_atom::value, caf::actor_cast<router_actor>(options_.router));
}

void node_state::start_edge() {
  auto opened = options_.make_edge();
  if (!opened) {
    log_error("the HTTP edge cannot open again: {}", to_string(opened.error()));
    restart_later("edge");
    return;
  }
  options_.edge = std::move(*opened);
  self_->monitor(options_.edge);
}

void node_state::restart_later(std::string what) {
  options_.metrics->actor_restarted(what.substr(0, what.find(':')));
  const auto delay = backoffs_[what].next(now());
  log_warn("the {} stopped; back in {} ms", what, delay.count());
  tell_later(self_, delay, attach_atom::value, std::move(what));
}

void node_state::restart_now(const std::string& what) {
  if (what == "router")
    start_router();
  else if (what == "edge")
    start_edge();
  else if (what.starts_with("backend:"))
    start_backend(std::stoul(what.substr(8)));
  else if (what.starts_with("replica:"))
    spawn_replica(replica_id{static_cast<std::uint32_t>(std::stoul(what.substr(8)))});
  publish();
}

void node_state::on_down(const caf::down_msg& down) {
  if (down.source == options_.router->address())
    return restart_later("router");
  if (options_.edge && down.source == options_.edge->address()) {
    options_.edge = nullptr;
    return restart_later("edge");
  }
  for (std::size_t i = 0; i < models_.size(); ++i) {
    if (down.source != models_[i].backend->address())
      continue;
    models_[i].backend_ready = false;
    restart_later("backend:" + std::to_string(i));
  }
  for (auto& [id, replica] : replicas_)
    if (down.source == replica.supervisor->address())
      lose_replica(id);
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

std::string node_state::state_of(std::size_t index) const {
  const auto& model = models_[index];
  if (model.state == "failed")
    return model.state;
  std::string worst = model.backend_ready ? "ready" : "loading";
  for (const auto& [id, replica] : replicas_) {
    if (replica.model != index)
      continue;
    const auto& state = replica.report.status.state;
    if (state == "failed" || (state != "ready" && worst == "ready"))
      worst = state;
  }
  return worst;
}

void node_state::publish() {
  auto next = std::make_shared<front_view>();
  next->draining = draining_;
  next->router = caf::actor_cast<router_actor>(options_.router);
  next->status.cluster = *options_.cluster.cluster;
  const auto uptime = std::chrono::duration_cast<std::chrono::seconds>(now() - began_);
  next->status.nodes.push_back({.name = *options_.self.name,
                                .address = "",
                                .state = draining_ ? "draining" : "up",
                                .uptime_s = static_cast<std::uint64_t>(uptime.count())});
  for (const auto& [id, replica] : replicas_)
    next->status.replicas.push_back(replica.report.status);
  for (std::size_t i = 0; i < models_.size(); ++i)
    next->models.push_back(entry_of(i));
  options_.desk->publish(std::move(next));
}

model_entry node_state::entry_of(std::size_t index) const {
  const auto& model = models_[index];
  model_entry entry{.name = model.config.name,
                    .served_names = *model.config.engine.served_model_name,
                    .backend = caf::actor_cast<backend_actor>(model.backend),
                    .created = model.created,
                    .state = state_of(index),
                    .note = model.note};
  for (const auto& [id, replica] : replicas_) {
    if (replica.model != index)
      continue;
    entry.max_model_len = replica.report.loaded.max_model_len;
    entry.description = replica.report.loaded;
    entry.loading = replica.report.loading;
    if (entry.note.empty())
      entry.note = replica.report.note;
  }
  return entry;
}

void node_state::measure_mailboxes() {
  options_.metrics->set_mailbox("node", mailbox_depth(self_));
  for (const auto& model : models_)
    if (model.backend_ready)
      ask(self_, model.backend, drain_limit, status_atom::value)
          .then(
              [this](std::uint64_t waiting) { options_.metrics->set_mailbox("backend", waiting); },
              [](const caf::error&) {});
}

void node_state::kill(const std::string& kind) {
  log_warn("fault injection: kill {}", kind);
  if (kind == "node")
    self_->quit(caf::exit_reason::kill);
  else if (kind == "router")
    caf::anon_send_exit(options_.router, caf::exit_reason::kill);
  else if (kind == "edge" && options_.edge)
    caf::anon_send_exit(options_.edge, caf::exit_reason::kill);
  else if (kind == "backend")
    for (auto& model : models_)
      caf::anon_send_exit(model.backend, caf::exit_reason::kill);
  else if (kind == "replica")
    for (auto& [id, replica] : replicas_)
      caf::anon_send_exit(replica.supervisor, caf::exit_reason::kill);
  else
    for (auto& [id, replica] : replicas_)
      tell(self_, replica.supervisor, kill_atom::value, kind);
}

void node_state::start_all() {
  began_ = now();
  self_->set_down_handler([this](const caf::down_msg& down) { on_down(down); });
  self_->monitor(options_.router);
  if (options_.edge)
    self_->monitor(options_.edge);
  for (const auto& model : options_.cluster.models) {
    models_.push_back({.config = model, .created = std::time(nullptr)});
    start_backend(models_.size() - 1);
    for (std::uint32_t i = 0; i < *model.instances; ++i)
      start_replica(models_.size() - 1, i);
  }
  publish();
  tell_later(self_, view_interval, tick_atom::value);
}

caf::result<std::uint64_t> node_state::drain() {
  draining_ = true;
  publish();
  auto left = self_->make_response_promise<std::uint64_t>();
  ask(self_, options_.router, drain_limit, drain_atom::value)
      .then([left](std::uint64_t streams) mutable { left.deliver(streams); },
            [left](const caf::error&) mutable { left.deliver(std::uint64_t{0}); });
  return left;
}

caf::result<std::uint64_t> node_state::cut() {
  auto ended = self_->make_response_promise<std::uint64_t>();
  ask(self_, options_.router, drain_limit, cancel_atom::value)
      .then([ended](std::uint64_t streams) mutable { ended.deliver(streams); },
            [ended](const caf::error&) mutable { ended.deliver(std::uint64_t{0}); });
  return ended;
}

node_core::behavior_type node_state::make_behavior(node_options options) {
  options_ = std::move(options);
  start_all();
  return {
      [this](const replica_report& report) { take_report(report); },
      [this](tick_atom) {
        tell_later(self_, view_interval, tick_atom::value);
        measure_mailboxes();
        publish();
      },
      [this](kill_atom, const std::string& kind) { kill(kind); },
      [this](attach_atom, const std::string& what) { restart_now(what); },
      [this](drain_atom) { return drain(); },
      [this](cancel_atom) { return cut(); },
  };
}

node_core::behavior_type run_node(node_core::stateful_pointer<node_state> self,
                                  node_options options) {
  return state(self).make_behavior(std::move(options));
}

} // namespace troupe::actors
