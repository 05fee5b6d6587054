#include "actors/node/replica.hpp"

#include "actors/kv_manager/kv_manager.hpp"
#include "actors/scheduler/scheduler.hpp"
#include "troupe/base/log.hpp"

namespace troupe::actors {

namespace {

constexpr std::chrono::milliseconds report_interval{100};
constexpr std::chrono::seconds status_limit{10};

const error emptied{errc::draining, "a node that ran a rank of the replica is being emptied"};

time_point now() { return std::chrono::steady_clock::now(); }

/// An error of loading that a second try would meet again.
bool is_permanent(errc code) {
  return code != errc::peer_down && code != errc::busy && code != errc::timed_out;
}

template <class Handle>
void end(Handle& handle) {
  if (!handle)
    return;
  caf::anon_send_exit(handle, caf::exit_reason::user_shutdown);
  handle = nullptr;
}

} // namespace

replica_state::~replica_state() {
  // Routers outlive it.
  stop_watching(self_, routers_);
  end_cast();
  end(worker_);
}

void replica_state::start_worker() {
  restart_pending_ = false;
  load_began_ = now();
  if (report_.status.state != "failed")
    report_.status.state = report_.status.restarts == 0 ? "loading" : "restarting";
  auto workers = options_.workers;
  workers.supervisor = replica_actor{self_};
  worker_ = spawn_workers(self_, workers);
  // Ranks that were let go meanwhile are of no interest.
  ask_without_limit(self_, worker_, load_atom::value)
      .then(
          [this, asked = worker_](const engine::executor_description& loaded) {
            if (worker_ == asked)
              build(loaded);
          },
          [this, asked = worker_](const caf::error& why) {
            if (worker_ == asked)
              on_load_failed(from_caf(why));
          });
  publish();
}

void replica_state::on_load_failed(const error& why) {
  if (!is_permanent(why.code)) {
    log_warn("model {}: {}", options_.model.name, to_string(why));
    end(worker_);
    return restart("worker");
  }
  log_error("model {}: {}", options_.model.name, to_string(why));
  report_.status.state = "failed";
  report_.why = why.code;
  report_.note = why.note;
  publish();
  // What has served before is tried until its files are whole again.
  if (life_ == 0)
    return;
  end(worker_);
  restart_pending_ = true;
  tell_later(self_, backoff_.next(now()), load_atom::value);
}

engine::scheduler_config replica_state::limits() const {
  const auto& args = options_.model.engine;
  const auto& loaded = report_.loaded;
  return {
      .block_size = loaded.block_size,
      .num_blocks = loaded.num_blocks,
      .num_host_blocks = loaded.num_host_blocks,
      .max_model_len = loaded.max_model_len,
      .vocab_size = loaded.vocab_size,
      .max_num_seqs = loaded.max_num_seqs,
      .max_num_batched_tokens = loaded.max_num_batched_tokens,
      .long_prefill_token_threshold = *args.long_prefill_token_threshold,
      .max_waiting = *options_.model.max_queued_requests,
      .enable_prefix_caching = *args.enable_prefix_caching,
      .enable_chunked_prefill = *args.enable_chunked_prefill,
      .policy = *args.scheduling_policy == config::scheduling_policy::priority
                    ? engine::scheduling_policy::priority
                    : engine::scheduling_policy::fcfs,
      .hash_key = options_.hash_key,
  };
}

void replica_state::build(const engine::executor_description& loaded) {
  restart_pending_ = false;
  report_.loaded = loaded;
  report_.why = errc::none;
  report_.note.clear();
  life_ = static_cast<std::uint64_t>(now().time_since_epoch().count());
  kv_manager_ =
      self_->spawn<caf::monitored>(kv_manager, kv_manager_options{.num_blocks = loaded.num_blocks,
                                                                  .block_size = loaded.block_size,
                                                                  .replica = options_.id,
                                                                  .incarnation = life_});
  scheduler_ =
      self_->spawn<caf::monitored>(scheduler, scheduler_options{.model = options_.model.name,
                                                                .replica = options_.id,
                                                                .limits = limits(),
                                                                .worker = worker_,
                                                                .kv_manager = kv_manager_,
                                                                .metrics = options_.metrics});
  options_.metrics->set_replica(
      options_.model.name, std::to_string(value(options_.id)),
      {.block_size = loaded.block_size,
       .num_blocks = loaded.num_blocks,
       .num_host_blocks = loaded.num_host_blocks,
       .max_model_len = loaded.max_model_len,
       .cache_dtype = loaded.kv_cache_dtype,
       .enable_prefix_caching = *options_.model.engine.enable_prefix_caching});
  for (const auto& [hub, router] : routers_)
    introduce_to(hub, router);
  set_ready();
  report_.loading = std::chrono::duration_cast<std::chrono::milliseconds>(now() - load_began_);
  options_.desk->mark_progress(now());
  publish();
}

void replica_state::set_ready() {
  report_.status.state = draining_ || resting_ ? "draining" : "ready";
}

void replica_state::attach(hub_id hub, const router_core& router) {
  if (const auto known = routers_.find(hub);
      known != routers_.end() && same_proxy(known->second, router))
    return;
  routers_[hub] = router;
  self_->monitor(router);
  introduce_to(hub, router);
}

void replica_state::introduce_to(hub_id hub, const router_core& router) {
  if (!scheduler_ || draining_ || resting_)
    return;
  tell(self_, scheduler_, attach_atom::value, hub, caf::actor_cast<hub_actor>(router));
  tell(self_, router, attach_atom::value, facts(), scheduler_, kv_manager_);
}

void replica_state::drain() {
  if (std::exchange(draining_, true))
    return;
  for (const auto& [hub, router] : routers_)
    tell(self_, router, drain_atom::value, options_.id);
  if (report_.status.state == "ready")
    set_ready();
  publish();
}

/// The routers take over what still runs here; nothing comes any more.
void replica_state::hand_over(const caf::error& why) {
  drain();
  for (const auto& [hub, router] : routers_)
    tell(self_, router, detach_atom::value, options_.id, why);
  end_cast();
  report_.stats.running = report_.stats.waiting = 0;
  publish();
}

/// The process of a rank is being emptied. What runs here goes on until it ends.
void replica_state::rest(const worker_actor& ranks) {
  if (!worker_ || ranks != worker_ || resting_)
    return;
  if (!scheduler_)
    return let_go(ranks, to_caf(emptied));
  resting_ = true;
  quiet_ticks_ = 0;
  for (const auto& [hub, router] : routers_)
    tell(self_, router, drain_atom::value, options_.id);
  set_ready();
  publish();
}

/// What routers sent before they heard of it has come by the last of these ticks.
void replica_state::watch_rest() {
  constexpr std::uint32_t quiet_ticks_wanted = 4;
  const bool busy = report_.stats.running + report_.stats.waiting > 0;
  quiet_ticks_ = busy ? 0 : quiet_ticks_ + 1;
  if (resting_ && quiet_ticks_ >= quiet_ticks_wanted)
    let_go(worker_, to_caf(emptied));
}

/// The ranks end, and new ones load when all have places again.
void replica_state::let_go(const worker_actor& ranks, const caf::error& why) {
  if (!worker_ || ranks != worker_)
    return;
  resting_ = false;
  for (const auto& [hub, router] : routers_)
    tell(self_, router, detach_atom::value, options_.id, why);
  end_cast();
  end(worker_);
  report_.stats.running = report_.stats.waiting = 0;
  log_info("model {}: its ranks make way for a node that is being emptied", options_.model.name);
  if (!draining_)
    start_worker();
  publish();
}

engine::replica_facts replica_state::facts() const {
  const auto& loaded = report_.loaded;
  return {.id = options_.id,
          .model = options_.route,
          .node = options_.node_name,
          .numerics = loaded.numerics,
          .batch_invariant = loaded.batch_invariant,
          .block_size = loaded.block_size,
          .incarnation = life_};
}

void replica_state::end_cast() {
  end(scheduler_);
  end(kv_manager_);
}

void replica_state::restart(const char* kind, const caf::error& why) {
  if (restart_pending_)
    return;
  restart_pending_ = true;
  resting_ = false;
  end_cast();
  const auto reason = is_from_troupe(why) ? fmt::format(" ({})", from_caf(why).note) : "";
  const error lost{errc::peer_down,
                   fmt::format("the {} of model '{}' stopped{}; it is being restarted", kind,
                               options_.model.name, reason)};
  for (const auto& [hub, router] : routers_)
    tell(self_, router, detach_atom::value, options_.id, to_caf(lost));
  ++report_.status.restarts;
  report_.status.state = "restarting";
  options_.metrics->actor_restarted(kind);
  const auto delay = backoff_.next(now());
  log_warn("{}; back in {} ms", lost.note, delay.count());
  tell_later(self_, delay, load_atom::value);
  publish();
}

/// The worker may have outlived the rest of the cast.
void replica_state::start_again() {
  if (!worker_)
    return start_worker();
  ask_without_limit(self_, worker_, reset_atom::value)
      .then(
          [this, asked = worker_] {
            if (worker_ == asked)
              build(report_.loaded);
          },
          [this, asked = worker_](const caf::error& why) {
            if (worker_ == asked)
              restart("worker", why);
          });
}

void replica_state::on_down(const caf::down_msg& down) {
  if (worker_ && down.source == worker_->address()) {
    worker_ = nullptr;
    restart("worker", down.reason);
  } else if (scheduler_ && down.source == scheduler_->address()) {
    scheduler_ = nullptr;
    // One that ends with a reason of its own has been told by the worker that no step succeeds
    // there.
    if (is_from_troupe(down.reason))
      end(worker_);
    restart(worker_ ? "scheduler" : "worker", down.reason);
  } else if (kv_manager_ && down.source == kv_manager_->address()) {
    kv_manager_ = nullptr;
    restart("kv_manager", down.reason);
  } else {
    // The scheduler hears of it too, and frees what that router's requests held.
    std::erase_if(routers_,
                  [&](const auto& known) { return same_proxy(known.second, down.source); });
  }
}

void replica_state::kill(const std::string& kind) {
  if (kind == "worker" && worker_)
    caf::anon_send_exit(worker_, caf::exit_reason::kill);
  else if (kind == "rank" && worker_ && options_.workers.ranks > 1)
    tell(self_, caf::actor_cast<worker_group_actor>(worker_), kill_atom::value);
  else if (kind == "scheduler" && scheduler_)
    caf::anon_send_exit(scheduler_, caf::exit_reason::kill);
  else if (kind == "kv_manager" && kv_manager_)
    caf::anon_send_exit(kv_manager_, caf::exit_reason::kill);
}

void replica_state::ping_worker() {
  if (ping_pending_ || !worker_ || !scheduler_)
    return;
  report_.answers = false;
  ping_pending_ = true;
  ask_without_limit(self_, worker_, status_atom::value)
      .then(
          [this](std::uint64_t waiting) {
            ping_pending_ = false;
            report_.answers = true;
            options_.metrics->set_mailbox("worker", waiting);
            options_.desk->mark_progress(now());
          },
          [this](const caf::error&) { ping_pending_ = false; });
}

void replica_state::tick() {
  tell_later(self_, report_interval, tick_atom::value);
  ping_worker();
  if (!scheduler_)
    return;
  ask(self_, scheduler_, status_limit, status_atom::value)
      .then([this](const load_report& load) { take_load(load); },
            [](const caf::error&) {}); // Its death is told apart.
  ask(self_, kv_manager_, status_limit, status_atom::value)
      .then(
          [this](const kv_report& kv) { options_.metrics->set_mailbox("kv_manager", kv.mailbox); },
          [](const caf::error&) {});
}

void replica_state::take_load(const load_report& load) {
  report_.stats = load.stats;
  options_.metrics->set_scheduler(options_.model.name, std::to_string(value(options_.id)),
                                  load.stats);
  options_.metrics->set_mailbox("scheduler", load.mailbox);
  for (const auto& [hub, router] : routers_)
    tell(self_, router, load);
  publish();
  watch_rest();
}

void replica_state::publish() {
  auto& s = report_.status;
  s.running = report_.stats.running;
  s.waiting = report_.stats.waiting;
  s.blocks_used = report_.stats.blocks_used;
  s.blocks_total = report_.stats.blocks_total;
  s.prompt_tokens = report_.stats.prompt_tokens;
  s.generation_tokens = report_.stats.generation_tokens;
  tell(self_, options_.node, report_);
}

replica_actor::behavior_type replica_state::make_behavior(replica_options options) {
  options_ = std::move(options);
  report_.status.model = options_.model.name;
  report_.status.version = options_.model.version;
  report_.status.replica = options_.id;
  report_.status.node = options_.node_name;
  self_->set_down_handler([this](const caf::down_msg& down) { on_down(down); });
  start_worker();
  tell_later(self_, report_interval, tick_atom::value);
  return {
      [this](tick_atom) { tick(); },
      [this](load_atom) {
        if (std::exchange(restart_pending_, false))
          start_again();
      },
      [this](kill_atom, const std::string& kind) { kill(kind); },
      [this](attach_atom, hub_id hub, const router_core& router) { attach(hub, router); },
      [this](drain_atom) { drain(); },
      [this](detach_atom, const caf::error& why) { hand_over(why); },
      [this](drain_atom, const worker_actor& ranks) { rest(ranks); },
      [this](detach_atom, const worker_actor& ranks, const caf::error& why) { let_go(ranks, why); },
  };
}

replica_actor::behavior_type run_replica(replica_actor::stateful_pointer<replica_state> self,
                                         replica_options options) {
  return state(self).make_behavior(std::move(options));
}

} // namespace troupe::actors
