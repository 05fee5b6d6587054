#include "tests/sim/front.hpp"

#include <algorithm>
#include <utility>

namespace troupe::sim {

namespace {

engine::router_config config_of(const world_plan& plan, hub_id hub) {
  auto config = plan.router;
  config.hub = hub;
  return config;
}

} // namespace

front::front(surroundings& around, node_index self, hub_id hub)
    : around_{around}, self_{self}, hub_{hub}, router_{config_of(around.plan, hub)} {}

void front::peer_up(node_index peer) { around_.net.send(self_, peer, attach_message{hub_}); }

void front::peer_down(node_index peer) {
  std::vector<replica_id> lost;
  for (const auto& [id, node] : where_) {
    if (node == peer)
      lost.push_back(id);
  }
  for (const auto id : lost)
    replica_gone(id, true);
}

void front::replica_gone(replica_id id, bool died) {
  where_.erase(id);
  facts_.erase(id);
  around_.clients.replica_lost(hub_, id, died, around_.time.now());
  router_.replica_down(id, {errc::peer_down, "the node is gone"},
                       died ? engine::end_cause::died : engine::end_cause::draining,
                       around_.time.now());
  pump();
  around_.clients.check_refused(hub_);
}

void front::joined(node_index from, const engine::replica_facts& facts) {
  const auto known = facts_.find(facts.id);
  if (known != facts_.end() && !(known->second == facts))
    around_.clients.replica_lost(hub_, facts.id, true, around_.time.now());
  where_[facts.id] = from;
  facts_[facts.id] = facts;
  router_.replica_up(facts, around_.time.now());
  pump();
}

void front::receive(node_index from, message what) {
  const auto now = around_.time.now();
  std::visit(overloaded{
                 [&](joined_message& hello) { joined(from, hello.facts); },
                 [&](draining_message& bye) { router_.replica_draining(bye.replica); },
                 [&](left_message& bye) {
                   if (where_.contains(bye.replica))
                     replica_gone(bye.replica, !bye.drained);
                 },
                 [&](verdict_message& answer) { take_verdict(answer); },
                 [&](load_message& load) { router_.load(load.replica, load.load); },
                 [&](engine::token_batch& batch) { take_tokens(std::move(batch)); },
                 [&](engine::kv_index_report& report) {
                   around_.net.send(self_, from, index_taken_message{report.replica});
                   router_.kv_events(report, now);
                 },
                 [](auto&) { TROUPE_PROMISE(false, "a message that no front takes"); },
             },
             what);
  pump();
}

void front::take_verdict(const verdict_message& what) {
  const auto now = around_.time.now();
  if (!what.refused) {
    around_.clients.accepted(what.id, what.replica, what.attempt);
    router_.accepted(what.id, what.replica, what.attempt, now);
    return;
  }
  around_.log.note(now, "replica {} refuses request {} attempt {}: {}", value(what.replica),
                   value(what.id), what.attempt, to_string(what.refused->code));
  if (what.refused->code != errc::peer_down) // else the word that the replica is gone follows
    around_.clients.rejected(what.id, what.attempt);
  router_.rejected(what.id, what.replica, what.attempt, *what.refused, now);
}

void front::take_tokens(engine::token_batch batch) {
  if (around_.planting(sabotage::attempt_fence_lost)) {
    for (auto& chunk : batch.chunks)
      chunk.attempt = around_.clients.attempt_of(chunk.request);
  }
  router_.tokens(batch, around_.time.now());
}

std::optional<request_id> front::submit(record fresh) {
  fresh.at = around_.time.now();
  const auto taken = router_.submit(fresh.asked, fresh.at);
  if (!taken) {
    const auto code = taken.error().code;
    const bool unknown = code == errc::not_found && !router_.knows(fresh.asked.model);
    const bool allowed = code == errc::busy || code == errc::peer_down || unknown ||
                         (code == errc::draining && draining_);
    TROUPE_PROMISE(allowed && !fresh.probe, "a new request is refused: {}",
                   to_string(taken.error()));
    return std::nullopt;
  }
  fresh.asked.id = *taken;
  fresh.asked.sink = {hub_, stream_id{value(*taken) & ((std::uint64_t{1} << 40) - 1)}};
  if (fresh.asked.timeout.count() > 0)
    fresh.deadline = fresh.at + fresh.asked.timeout;
  around_.clients.opened(std::move(fresh));
  pump();
  return *taken;
}

void front::cancel(request_id id) {
  around_.clients.cancelled(id);
  router_.cancel(id, around_.time.now());
  pump();
}

void front::forget(request_id id) {
  around_.clients.forgotten(id);
  router_.forget(id);
  pump();
}

void front::drain(duration patience) {
  if (std::exchange(draining_, true))
    return;
  around_.log.note(around_.time.now(), "{} drains", around_.net.name(self_));
  (void)router_.drain();
  around_.net.run_in(self_, patience, [this] {
    around_.clients.front_cuts(hub_);
    (void)router_.cut_all();
    pump();
    TROUPE_PROMISE(around_.clients.open_of(hub_).empty(), "a front ends before its requests do");
    // What it has sent is on its way before its connections end.
    around_.net.run_in(self_, std::chrono::milliseconds{20}, [this] { around_.leave(self_); });
  });
}

/// Carries out what the router wants, after every event.
void front::pump() {
  auto actions = router_.take_actions();
  const auto to = [&](replica_id id, message what) {
    if (const auto known = where_.find(id); known != where_.end())
      around_.net.send(self_, known->second, std::move(what));
  };
  for (const auto id : actions.snapshots)
    to(id, snapshot_message{id});
  for (const auto& [replica, id] : actions.cancels)
    if (const auto life = facts_.find(replica); life != facts_.end())
      to(replica, cancel_message{replica, life->second.incarnation, id});
  for (auto& dispatch : actions.dispatches)
    send(std::move(dispatch));
  for (const auto& verdict : actions.verdicts)
    around_.clients.verdict(verdict.id, verdict.outcome, around_.time.now());
  for (const auto& chunk : actions.deliveries)
    around_.clients.delivered(chunk, around_.time.now());
  const auto stats = router_.stats();
  TROUPE_PROMISE(stats.hub.open <= around_.plan.router.max_streams);
  TROUPE_PROMISE(stats.index_blocks <= around_.plan.router.index_blocks_max);
  TROUPE_PROMISE(stats.hub.open == around_.clients.open_of(hub_).size(),
                 "the hub has {} streams, its clients wait for {}", stats.hub.open,
                 around_.clients.open_of(hub_).size());
  keep_deadline();
}

void front::send(engine::router_actions::dispatch what) {
  const auto known = where_.find(what.replica);
  TROUPE_PROMISE(known != where_.end(), "request {} is sent to replica {}, which is gone",
                 value(what.request.id), value(what.replica));
  const auto& life = facts_.at(what.replica);
  around_.clients.dispatched(what.request, life, around_.time.now());
  auto& request = what.request;
  if (around_.planting(sabotage::token_forgotten) && !request.delivered.empty())
    request.delivered.erase(request.delivered.begin());
  if (around_.planting(sabotage::seed_forgotten) && request.attempt > 1)
    request.sampling.seed = 0;
  around_.net.send(self_, known->second,
                   dispatch_message{what.replica, life.incarnation, std::move(request)});
}

void front::keep_deadline() {
  const auto next = router_.next_deadline();
  if (!next || (timer_ && *timer_ <= *next))
    return;
  timer_ = next;
  const auto wait = std::max(*next - around_.time.now(), duration{0});
  around_.net.run_in(self_, wait, [this, when = *next] {
    if (timer_ != when)
      return;
    timer_.reset();
    router_.expire(around_.time.now());
    const auto later = router_.next_deadline();
    TROUPE_PROMISE(!later || *later > around_.time.now(), "a deadline that passed stays");
    pump();
  });
}

} // namespace troupe::sim
