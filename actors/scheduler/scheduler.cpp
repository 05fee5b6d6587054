#include "actors/scheduler/scheduler.hpp"

#include "troupe/base/log.hpp"

#include <algorithm>

namespace troupe::actors {

namespace {

using self_ptr = scheduler_actor::stateful_pointer<scheduler_state>;

/// How exactly deadlines are kept.
constexpr std::chrono::milliseconds deadline_tick{20};

void pump(self_ptr self);

time_point now() { return std::chrono::steady_clock::now(); }

void on_step_done(self_ptr self, const engine::step_result& done) {
  auto& st = state(self);
  st.last_step = now();
  st.core->step_done(done, *st.last_step);
  if (st.options.metrics)
    st.options.metrics->observe_step(st.options.model, st.engine_label, done.timings,
                                     done.tokens.size());
  pump(self);
}

/// A step that failed ends its requests. A worker that died ends the scheduler instead, without a
/// word to the hubs: the routers let every stream go on elsewhere.
void on_step_failed(self_ptr self, step_id step, const caf::error& why) {
  const auto reason = from_caf(why);
  if (reason.code == errc::peer_down)
    return self->quit(why);
  log_error("model {} replica {}: {}", state(self).options.model,
            value(state(self).options.replica), to_string(reason));
  state(self).core->step_failed(step, reason, now());
  pump(self);
}

void send_step(self_ptr self, engine::step_batch step) {
  const auto id = step.id;
  ask_without_limit(self, state(self).options.worker, std::move(step))
      .then([self](const engine::step_result& done) { on_step_done(self, done); },
            [self, id](const caf::error& why) { on_step_failed(self, id, why); });
}

/// The kv_manager lives and dies with its scheduler: without it nothing can go on.
void lose_kv_manager(self_ptr self, const caf::error& why) { self->quit(why); }

void send_admit(self_ptr self, engine::kv_admit admit) {
  ask_without_limit(self, state(self).options.kv_manager, std::move(admit))
      .then(
          [self](const engine::kv_admitted& answer) {
            state(self).core->admitted(answer, now());
            pump(self);
          },
          [self](const caf::error& why) { lose_kv_manager(self, why); });
}

void send_want(self_ptr self, engine::kv_want want) {
  ask_without_limit(self, state(self).options.kv_manager, want)
      .then(
          [self](const engine::kv_grant& answer) {
            state(self).core->granted(answer);
            pump(self);
          },
          [self](const caf::error& why) { lose_kv_manager(self, why); });
}

void send_actions(self_ptr self) {
  auto& st = state(self);
  auto actions = st.core->take_actions();
  for (auto& commit : actions.commits)
    tell(self, st.options.kv_manager, std::move(commit));
  for (auto& release : actions.releases)
    tell(self, st.options.kv_manager, std::move(release));
  for (auto& admit : actions.admits)
    send_admit(self, std::move(admit));
  if (actions.want)
    send_want(self, *actions.want);
  for (auto& [hub, chunks] : actions.tokens) {
    const auto known = st.hubs.find(hub);
    if (known != st.hubs.end())
      tell(self, known->second, engine::token_batch{st.options.replica, std::move(chunks)});
  }
}

void report_finished(scheduler_state& st) {
  for (const auto& ended : st.core->take_finished())
    if (st.options.metrics)
      st.options.metrics->observe_request(st.options.model, st.engine_label, ended);
}

void keep_deadlines(self_ptr self) {
  auto& st = state(self);
  if (st.tick_pending || !st.core->next_deadline())
    return;
  st.tick_pending = true;
  tell_later(self, deadline_tick, tick_atom::value);
}

/// Plans as many steps as may be in flight, then sends what the core wants sent. Steps go first:
/// the device waits for them, the other receivers wait less dearly.
void pump(self_ptr self) {
  while (auto step = state(self).core->plan(now()))
    send_step(self, std::move(*step));
  send_actions(self);
  report_finished(state(self));
  keep_deadlines(self);
}

caf::result<accepted> take(self_ptr self, const engine::submission& request) {
  auto& st = state(self);
  if (auto taken = st.core->submit(request, now()); !taken)
    return to_caf(taken.error());
  pump(self);
  return accepted{request.id, st.options.replica};
}

/// A front process or its router is gone: nobody waits for what its requests would generate.
void lose_hub(self_ptr self, const caf::down_msg& down) {
  auto& hubs = state(self).hubs;
  const auto lost = std::find_if(hubs.begin(), hubs.end(), [&](const auto& known) {
    return same_proxy(known.second, down.source);
  });
  if (lost == hubs.end())
    return;
  state(self).core->cancel_hub(lost->first, now());
  hubs.erase(lost);
  pump(self);
}

/// A front that is met again over a new connection has given up what it sent over the old one.
void take_hub(self_ptr self, hub_id hub, const hub_actor& actor) {
  auto& known = state(self).hubs[hub];
  if (known && same_proxy(known, actor))
    return;
  if (known)
    state(self).core->cancel_hub(hub, now());
  known = actor;
  self->monitor(actor);
  pump(self);
}

load_report report(self_ptr self) {
  auto& st = state(self);
  load_report made{
      .replica = st.options.replica, .stats = st.core->stats(), .mailbox = mailbox_depth(self)};
  if (st.last_step)
    made.last_step_age =
        std::chrono::duration_cast<std::chrono::milliseconds>(now() - *st.last_step);
  return made;
}

} // namespace

scheduler_actor::behavior_type scheduler(self_ptr self, scheduler_options options) {
  auto& st = state(self);
  st.core = std::make_unique<engine::scheduler>(options.limits);
  st.engine_label = std::to_string(value(options.replica));
  st.options = std::move(options);
  self->set_down_handler([self](const caf::down_msg& down) { lose_hub(self, down); });
  return {
      [self](submit_atom, const engine::submission& request) { return take(self, request); },
      [self](cancel_atom, request_id id) {
        state(self).core->cancel(id, engine::finish_reason::abort, now());
        pump(self);
      },
      [self](attach_atom, hub_id hub, const hub_actor& actor) { take_hub(self, hub, actor); },
      [self](status_atom) { return report(self); },
      [self](tick_atom) {
        state(self).tick_pending = false;
        state(self).core->expire(now());
        pump(self);
      },
  };
}

} // namespace troupe::actors
