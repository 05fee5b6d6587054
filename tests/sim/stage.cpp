#include "tests/sim/stage.hpp"

#include <algorithm>
#include <utility>

namespace troupe::sim {

using std::chrono::microseconds;
using std::chrono::milliseconds;

namespace {

constexpr auto deadline_tick = milliseconds{20};
constexpr auto drain_tick = milliseconds{10};

} // namespace

// -- one replica ----------------------------------------------------------------------------------

replica::replica(const replica_plan& plan, surroundings& around)
    : replica_loop{plan.limits, {around.plan.vocab, plan.numerics}},
      feed{{.replica = plan.id, .incarnation = around.incarnations + 1, .events_kept = 64}},
      plan_{plan}, around_{around}, incarnation_{++around.incarnations} {}

engine::replica_facts replica::facts(const std::string& node) const {
  return {.id = plan_.id,
          .model = plan_.model,
          .node = node,
          .numerics = plan_.numerics,
          .batch_invariant = plan_.batch_invariant,
          .block_size = plan_.limits.block_size,
          .incarnation = incarnation_};
}

void replica::receive(hub_id hub, const engine::token_chunk& chunk) {
  if (losing_)
    around_.clients.step_failed(chunk.request);
  auto batch = std::ranges::find(outbox, hub, [](const auto& entry) { return entry.first; });
  if (batch == outbox.end())
    batch = outbox.insert(outbox.end(), {hub, {}});
  batch->second.push_back(chunk);
}

void replica::fail_steps(bool learns_late) {
  losing_ = true;
  fail_step(learns_late, {errc::internal, "the device failed"});
  losing_ = false;
}

void replica::tell_feed() {
  auto events = pool.take_events();
  if (around_.planting(sabotage::index_event_lost)) {
    const auto gone =
        std::ranges::find(events, engine::kv_event::kind::removed, &engine::kv_event::what);
    if (gone != events.end()) {
      const auto after = events.erase(gone);
      for (auto& event : events)
        event.number -= swallowed_;
      ++swallowed_;
      for (auto i = after; i != events.end(); ++i)
        --i->number;
    } else {
      for (auto& event : events)
        event.number -= swallowed_;
    }
  }
  feed.add(std::move(events));
}

// -- the process of a stage -----------------------------------------------------------------------

stage::stage(surroundings& around, node_index self, const stage_plan& plan)
    : around_{around}, self_{self}, plan_{plan} {
  for (const auto& each : plan.replicas)
    replicas_.emplace(each.id, std::make_unique<replica>(each, around));
}

void stage::run_in(replica& of, duration time, std::function<void(replica&)> what) {
  const auto id = of.facts({}).id;
  around_.net.run_in(self_, time, [this, id, life = &of, what = std::move(what)] {
    const auto found = replicas_.find(id);
    if (found != replicas_.end() && found->second.get() == life)
      what(*life);
  });
}

/// Plans what can be planned, sends what is to be sent and sees to it that all goes on; after every
/// event, as the scheduler's actor does.
void stage::pump(replica& of) {
  of.now = around_.time.now();
  while (of.step_plan()) {
  }
  send_chunks(of);
  start_work(of);
}

void stage::send_chunks(replica& of) {
  for (auto& [hub, chunks] : std::exchange(of.outbox, {})) {
    if (const auto known = hubs_.find(hub); known != hubs_.end())
      around_.net.send(self_, known->second,
                       engine::token_batch{of.facts({}).id, std::move(chunks)});
  }
}

void stage::start_work(replica& of) {
  const auto message_time = [&] { return around_.between(microseconds{2}, microseconds{80}); };
  if (!of.to_pool.empty() && !std::exchange(of.kv_busy, true))
    run_in(of, message_time(), [this](replica& one) {
      one.kv_busy = false;
      const bool release = std::holds_alternative<engine::kv_release>(one.to_pool.front());
      if (release && around_.planting(sabotage::release_lost) && around_.pick(20) == 0)
        one.to_pool.pop_front();
      else
        (void)one.step_kv();
      one.tell_feed();
      if (one.feed.urgent())
        flush_feed(one);
      pump(one);
    });
  if (!of.to_sched.empty() && !std::exchange(of.answer_busy, true))
    run_in(of, message_time(), [this](replica& one) {
      one.answer_busy = false;
      one.now = around_.time.now();
      (void)one.step_answer();
      pump(one);
    });
  if (of.worker.queued() > 0 && !std::exchange(of.worker_busy, true)) {
    const auto& plan = *std::ranges::find(plan_.replicas, of.facts({}).id, &replica_plan::id);
    run_in(of, around_.between(plan.step_min, plan.step_max), [this](replica& one) { work(one); });
  }
  if (of.sched.next_deadline() && !std::exchange(of.tick_pending, true))
    run_in(of, deadline_tick, [this](replica& one) {
      one.tick_pending = false;
      one.now = around_.time.now();
      one.expire();
      pump(one);
    });
}

/// The worker ends its oldest step, or what is in it ends the worker's process.
void stage::work(replica& of) {
  of.worker_busy = false;
  of.now = around_.time.now();
  if (of.worker.queued() == 0)
    return;
  std::set<request_id> failing;
  for (const auto& row : of.worker.queue().front().rows) {
    if (around_.clients.is_poison(row.id)) {
      around_.log.note(of.now, "request {} kills replica {}", value(row.id),
                       value(of.facts({}).id));
      around_.crash(self_);
      return;
    }
    const auto odds = around_.plan.row_failures;
    if (odds > 0 && of.now < around_.faults_end && around_.pick(odds) == 0)
      failing.insert(row.id);
  }
  if (around_.planting(sabotage::commit_early)) {
    auto ahead = of.worker;
    of.sched.step_done(ahead.run({}), of.now);
    of.settle();
    (void)of.worker.run({});
  } else {
    (void)of.step_worker(failing);
  }
  pump(of);
}

void stage::attached(node_index from, hub_id hub) {
  hubs_[hub] = from;
  for (const auto& [id, one] : replicas_) {
    if (left_)
      break;
    around_.net.send(self_, from, joined_message{one->facts(around_.net.name(self_))});
    if (draining_)
      around_.net.send(self_, from, draining_message{id});
    one->feed.attach(hub);
    flush_feed(*one);
  }
  if (!std::exchange(reporting_, true))
    report();
}

void stage::peer_down(node_index peer) {
  const auto lost = std::ranges::find(hubs_, peer, [](const auto& entry) { return entry.second; });
  if (lost == hubs_.end())
    return;
  const auto hub = lost->first;
  hubs_.erase(lost);
  for (const auto& [id, one] : replicas_) {
    one->now = around_.time.now();
    one->feed.detach(hub);
    if (!around_.planting(sabotage::hub_death_lost))
      one->cancel_hub(hub);
    pump(*one);
  }
  check_hubs();
}

/// Nobody computes for a front that is gone.
void stage::check_hubs() const {
  for (const auto& [id, one] : replicas_) {
    for (const auto request : one->served())
      TROUPE_PROMISE(hubs_.contains(hub_of(request)),
                     "replica {} serves request {} of a front that is gone", value(id),
                     value(request));
  }
}

void stage::dispatched(node_index from, dispatch_message what) {
  const auto found = replicas_.find(what.replica);
  verdict_message verdict{.replica = what.replica,
                          .id = what.request.id,
                          .attempt = what.request.attempt,
                          .refused = std::nullopt};
  if (draining_ || found == replicas_.end()) {
    verdict.refused = error{errc::draining, "the node is draining"};
    around_.net.send(self_, from, std::move(verdict));
    return;
  }
  auto& one = *found->second;
  if (one.facts({}).incarnation != what.incarnation) {
    verdict.refused = error{errc::peer_down, "the replica was restarted"};
    around_.net.send(self_, from, std::move(verdict));
    return;
  }
  one.now = around_.time.now();
  if (auto taken = one.submit(what.request); !taken)
    verdict.refused = taken.error();
  // As in the actor, chunks may leave before the answer does.
  pump(one);
  around_.net.send(self_, from, std::move(verdict));
}

void stage::receive(node_index from, message what) {
  const auto with = [&](replica_id id, auto act) {
    if (const auto found = replicas_.find(id); found != replicas_.end())
      act(*found->second);
  };
  const auto hub_at = [&](node_index node) {
    return std::ranges::find(hubs_, node, [](const auto& entry) { return entry.second; })->first;
  };
  std::visit(overloaded{
                 [&](attach_message& hello) { attached(from, hello.hub); },
                 [&](dispatch_message& request) { dispatched(from, std::move(request)); },
                 [&](cancel_message& request) {
                   with(request.replica, [&](replica& one) {
                     if (one.facts({}).incarnation != request.incarnation)
                       return;
                     one.now = around_.time.now();
                     one.cancel(request.id);
                     pump(one);
                   });
                 },
                 [&](snapshot_message& request) {
                   with(request.replica, [&](replica& one) {
                     one.feed.attach(hub_at(from));
                     flush_feed(one);
                   });
                 },
                 [&](index_taken_message& request) {
                   with(request.replica, [&](replica& one) { one.feed.arrived(hub_at(from)); });
                 },
                 [](auto&) { TROUPE_PROMISE(false, "a message that no stage takes"); },
             },
             what);
}

void stage::flush_feed(replica& of) {
  for (auto& [hub, report] : of.feed.take([&] { return of.pool.indexed(); })) {
    if (const auto known = hubs_.find(hub); known != hubs_.end())
      around_.net.send(self_, known->second, std::move(report));
  }
}

/// Load and index changes, again and again while any front is attached.
void stage::report() {
  reporting_ = !hubs_.empty();
  if (!reporting_)
    return;
  check_hubs();
  for (const auto& [id, one] : replicas_) {
    const auto stats = one->sched.stats();
    TROUPE_PROMISE(stats.waiting <= one->config.max_waiting + one->config.max_num_seqs,
                   "{} requests wait", stats.waiting);
    tell_all(load_message{id,
                          {.running = stats.running,
                           .waiting = stats.waiting,
                           .free_blocks = stats.blocks_total - stats.blocks_used,
                           .used_blocks = stats.blocks_used,
                           .waiting_tokens = 0}});
    flush_feed(*one);
  }
  around_.net.run_in(self_, around_.plan.load_every, [this] { report(); });
}

void stage::tell_all(const message& what) {
  for (const auto& [hub, node] : hubs_)
    around_.net.send(self_, node, what);
}

// -- faults ---------------------------------------------------------------------------------------

void stage::fail_step(std::uint32_t which) {
  auto& one = *std::next(replicas_.begin(), which % replicas_.size())->second;
  one.now = around_.time.now();
  one.fail_steps(around_.pick(2) == 0);
  one.hear_stale_step();
  pump(one);
}

void stage::restart_replica(std::uint32_t which) {
  if (draining_)
    return;
  const auto& plan = plan_.replicas.at(which % plan_.replicas.size());
  auto& one = replicas_.at(plan.id);
  tell_all(left_message{plan.id, false});
  graveyard_.push_back(std::exchange(one, std::make_unique<replica>(plan, around_)));
  const auto announce = [this](replica& fresh) {
    for (const auto& [hub, node] : hubs_) {
      around_.net.send(self_, node, joined_message{fresh.facts(around_.net.name(self_))});
      fresh.feed.attach(hub);
    }
    flush_feed(fresh);
  };
  announce(*one);
}

void stage::drain(duration patience) {
  if (std::exchange(draining_, true))
    return;
  drain_until_ = around_.time.now() + patience;
  for (const auto& [id, one] : replicas_)
    tell_all(draining_message{id});
  drain_further();
}

void stage::drain_further() {
  const bool served = std::ranges::any_of(
      replicas_, [](const auto& entry) { return entry.second->requests() > 0; });
  if (!left_ && (!served || around_.time.now() >= drain_until_))
    leave_replicas();
  if (left_ && quiet()) {
    check_home();
    around_.leave(self_);
    return;
  }
  around_.net.run_in(self_, drain_tick, [this] { drain_further(); });
}

/// What is left here goes on elsewhere.
void stage::leave_replicas() {
  left_ = true;
  for (const auto& [id, one] : replicas_) {
    tell_all(left_message{id, true});
    one->now = around_.time.now();
    for (const auto& [hub, node] : hubs_)
      one->cancel_hub(hub);
    pump(*one);
  }
}

// -- at rest --------------------------------------------------------------------------------------

bool stage::quiet() const {
  return std::ranges::all_of(replicas_, [](const auto& entry) { return entry.second->quiet(); });
}

void stage::check_home() {
  for (const auto& [id, one] : replicas_)
    one->check_home();
}

std::map<replica_id, std::vector<block_hash>> stage::indexed() const {
  std::map<replica_id, std::vector<block_hash>> out;
  for (const auto& [id, one] : replicas_) {
    out[id] = one->pool.indexed();
    std::ranges::sort(out[id]);
  }
  return out;
}

std::uint64_t stage::sum_of(std::uint64_t engine::scheduler_stats::*count) const {
  std::uint64_t sum = 0;
  for (const auto& [id, one] : replicas_)
    sum += one->sched.stats().*count;
  return sum;
}

} // namespace troupe::sim
