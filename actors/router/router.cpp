#include "actors/router/router.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace troupe::actors {

namespace {

constexpr std::chrono::minutes scheduler_limit{5};
/// How exactly deadlines are kept, while there is one.
constexpr std::chrono::milliseconds deadline_tick{20};

time_point now() { return std::chrono::steady_clock::now(); }

} // namespace

bool router_state::is_served(std::string_view model) const {
  const auto view = options_.desk->view();
  return std::any_of(view->models.begin(), view->models.end(), [&](const model_entry& m) {
    return (m.route.empty() ? m.name : m.route) == model;
  });
}

caf::result<accepted> router_state::submit(engine::submission request, const token_sink& sink) {
  const auto model = request.model;
  const auto arrived = now();
  auto taken = core_->submit(std::move(request), arrived);
  if (!taken && taken.error().code == errc::not_found && is_served(model))
    return to_caf(
        {errc::peer_down, fmt::format("no replica of model '{}' is ready; try again soon", model)});
  if (!taken)
    return to_caf(taken.error());
  const std::chrono::duration<double> decided_in = now() - arrived;
  options_.metrics->observe_decision(engine::to_string(options_.policy), decided_in.count());
  auto answer = self_->make_response_promise<accepted>();
  asked_.emplace(*taken, answer);
  keep_sink(*taken, sink);
  pump();
  return answer;
}

void router_state::keep_sink(request_id id, const token_sink& sink) {
  sinks_.emplace(id, sink);
  auto& of_sink = by_sink_[sink->address()];
  if (of_sink.empty())
    self_->monitor(sink);
  of_sink.insert(id);
}

void router_state::drop_sink(request_id id) {
  const auto sink = sinks_.find(id);
  if (sink == sinks_.end())
    return;
  const auto address = sink->second->address();
  sinks_.erase(sink);
  const auto of_sink = by_sink_.find(address);
  if (of_sink == by_sink_.end() || of_sink->second.erase(id) == 0 || !of_sink->second.empty())
    return;
  by_sink_.erase(of_sink);
  self_->demonitor(address);
}

void router_state::dispatch(const engine::router_actions::dispatch& what) {
  const auto id = what.request.id;
  const auto replica = what.replica;
  const auto attempt = what.request.attempt;
  ask(self_, schedulers_.at(replica), scheduler_limit, submit_atom::value, what.request)
      .then(
          [this, id, replica, attempt](const accepted&) {
            core_->accepted(id, replica, attempt, now());
            pump();
          },
          [this, id, replica, attempt](const caf::error& why) {
            core_->rejected(id, replica, attempt, from_caf(why), now());
            pump();
          });
}

/// Answers a submission; after an error its sink hears nothing.
void router_state::settle(const engine::router_actions::verdict& what) {
  auto waiting = asked_.extract(what.id);
  if (!what.outcome)
    drop_sink(what.id);
  if (!waiting)
    return;
  if (what.outcome)
    waiting.mapped().deliver(accepted{what.id, *what.outcome});
  else
    waiting.mapped().deliver(to_caf(what.outcome.error()));
}

/// One message per sink, with all of its chunks.
void router_state::deliver(std::vector<engine::token_chunk> chunks, replica_id from) {
  std::map<caf::actor_addr, std::pair<token_sink, engine::token_batch>> out;
  for (auto& chunk : chunks) {
    const auto sink = sinks_.find(chunk.request);
    if (sink == sinks_.end())
      continue;
    auto& [handle, sent] = out[sink->second->address()];
    handle = sink->second;
    sent.replica = from;
    const bool last = chunk.finish != engine::finish_reason::none;
    const auto id = chunk.request;
    sent.chunks.push_back(std::move(chunk));
    if (last)
      drop_sink(id);
  }
  for (auto& [address, one] : out)
    tell(self_, one.first, std::move(one.second));
}

/// Carries out what the core wants sent. Tokens come `from` the replica of the event before it.
void router_state::pump(replica_id from) {
  auto actions = core_->take_actions();
  for (const auto replica : actions.snapshots)
    if (const auto at = kv_managers_.find(replica); at != kv_managers_.end())
      tell(self_, at->second, attach_atom::value, options_.hub, index_sink{self_});
  for (const auto& cancel : actions.cancels)
    if (const auto at = schedulers_.find(cancel.replica); at != schedulers_.end())
      tell(self_, at->second, cancel_atom::value, cancel.id);
  for (const auto& one : actions.dispatches)
    dispatch(one);
  for (const auto& one : actions.verdicts)
    settle(one);
  deliver(std::move(actions.deliveries), from);
  keep_deadlines();
}

void router_state::keep_deadlines() {
  if (tick_pending_ || !core_->next_deadline())
    return;
  tick_pending_ = true;
  tell_later(self_, deadline_tick, tick_atom::value);
}

void router_state::attach(engine::replica_facts facts, const scheduler_actor& scheduler,
                          const kv_manager_actor& kv_manager) {
  const auto known = schedulers_.find(facts.id);
  const bool same = known != schedulers_.end() && same_proxy(known->second, scheduler);
  if (known != schedulers_.end() && !same)
    lose(facts.id, {errc::peer_down, "the replica that served the request was started anew"});
  if (!same)
    self_->monitor(scheduler);
  kv_managers_[facts.id] = kv_manager;
  schedulers_[facts.id] = scheduler;
  core_->replica_up(std::move(facts), now());
  pump();
}

void router_state::lose(replica_id replica, const error& why) {
  const auto cause =
      why.code == errc::draining ? engine::end_cause::draining : engine::end_cause::died;
  core_->replica_down(replica, why, cause, now());
  pump();
  kv_managers_.erase(replica);
  if (const auto gone = schedulers_.extract(replica))
    self_->demonitor(gone.mapped()->address());
}

void router_state::take_load(const load_report& load) {
  core_->load(load.replica, {.running = load.stats.running,
                             .waiting = load.stats.waiting,
                             .free_blocks = load.stats.blocks_total - load.stats.blocks_used,
                             .used_blocks = load.stats.blocks_used,
                             .waiting_tokens = load.stats.waiting_tokens});
  options_.metrics->set_mailbox("router", mailbox_depth(self_));
  count();
}

/// Brings the metrics up to what the core has counted.
void router_state::count() {
  const auto stats = core_->stats();
  options_.metrics->count_migrations(stats.migrations_exact - counted_.migrations_exact,
                                     stats.migrations_inexact - counted_.migrations_inexact);
  options_.metrics->count_poisoned(stats.poisoned - counted_.poisoned);
  options_.metrics->update_router({.policy = engine::to_string(options_.policy),
                                   .decisions = stats.decisions - counted_.decisions,
                                   .index_gaps = stats.index_gaps - counted_.index_gaps,
                                   .snapshots = stats.snapshots - counted_.snapshots,
                                   .index_blocks = stats.index_blocks,
                                   .index_bytes = stats.index_bytes,
                                   .parked = stats.parked});
  counted_ = stats;
}

void router_state::on_down(const caf::down_msg& down) {
  const auto served = std::ranges::find_if(
      schedulers_, [&](const auto& known) { return same_proxy(known.second, down.source); });
  if (served == schedulers_.end())
    return lose_sink(down.source);
  lose(served->first, {errc::peer_down, "the replica that served the request is gone"});
}

void router_state::lose_sink(const caf::actor_addr& sink) {
  const auto found = by_sink_.find(sink);
  if (found == by_sink_.end())
    return;
  const auto streams = found->second;
  for (const auto id : streams) {
    core_->forget(id);
    asked_.erase(id);
    drop_sink(id);
  }
  pump();
}

router_core::behavior_type router_state::make_behavior(router_options options) {
  core_ =
      std::make_unique<engine::router>(engine::router_config{.hub = options.hub,
                                                             .policy = options.policy,
                                                             .max_streams = options.max_streams,
                                                             .hash_key = options.hash_key,
                                                             .resume_limit = options.resume_limit});
  options_ = std::move(options);
  self_->set_down_handler([this](const caf::down_msg& down) { on_down(down); });
  return {
      [this](submit_atom, engine::submission& request, const token_sink& sink) {
        return submit(std::move(request), sink);
      },
      [this](cancel_atom, request_id id) {
        core_->cancel(id, now());
        pump();
      },
      [this](status_atom) { return options_.desk->view()->status; },
      [this](const engine::token_batch& batch) {
        core_->tokens(batch, now());
        pump(batch.replica);
      },
      [this](const engine::kv_index_report& report) {
        core_->kv_events(report, now());
        pump();
      },
      [this](attach_atom, const engine::replica_facts& facts, const scheduler_actor& scheduler,
             const kv_manager_actor& kv_manager) { attach(facts, scheduler, kv_manager); },
      [this](drain_atom, replica_id replica) { core_->replica_draining(replica); },
      [this](detach_atom, replica_id replica, const caf::error& why) {
        lose(replica, from_caf(why));
      },
      [this](const load_report& load) { take_load(load); },
      [this](tick_atom) {
        tick_pending_ = false;
        core_->expire(now());
        pump();
      },
      [this](drain_atom) { return core_->drain(); },
      [this](cancel_atom) {
        const auto cut = core_->cut_all();
        pump();
        return cut;
      },
  };
}

router_core spawn_router(caf::actor_system& system, router_options options) {
  const auto behavior = [](router_core::stateful_pointer<router_state> self, router_options given) {
    return state(self).make_behavior(std::move(given));
  };
  return system.spawn(behavior, std::move(options));
}

} // namespace troupe::actors
