#include "actors/worker/worker.hpp"

#include <fmt/core.h>

#include <thread>
#include <utility>

namespace troupe::actors {

namespace {

using self_ptr = worker_core::stateful_pointer<worker_state>;

/// Why a worker ends whose executor is.
caf::error spoiled() { return to_caf({errc::peer_down, "the executor is to be loaded anew"}); }

caf::result<engine::executor_description> load(worker_state& st) {
  auto made = st.options.make();
  if (!made)
    return to_caf(made.error());
  if (auto loaded = (*made)->load(st.options.progress); !loaded)
    return to_caf(loaded.error());
  st.executor = std::move(*made);
  return st.executor->describe();
}

/// Why a step failed: with the step in its note, where the executor has not put it there.
caf::error failure_of(const worker_state& st, step_id step, const error& why) {
  const auto name = fmt::format("step {}: ", value(step));
  const auto& group = st.options.group;
  return to_caf({group && group->failure() ? errc::peer_down : why.code,
                 why.note.starts_with(name) ? why.note : name + why.note});
}

void answer_status(self_ptr self) {
  for (auto& waiting : std::exchange(state(self).asked, {}))
    waiting.deliver(mailbox_depth(self));
}

/// After an error the executor knows no sequence: what is in work is lost too. Where the executor
/// went with a process of its own, the worker ends with it, and routers let its streams go on
/// elsewhere or once it is back.
void lose_all(self_ptr self, const caf::error& why) {
  auto& st = state(self);
  st.executor->reset();
  for (auto& lost : std::exchange(st.in_work, {}))
    lost.answer.deliver(why);
  answer_status(self);
  if (st.executor->spoiled() && from_caf(why).code == errc::peer_down)
    self->quit(why);
}

result<void> begin_step(engine::executor& exec, const engine::step_batch& step) {
  return exec.prepare(step).and_then([&] { return exec.launch(step.id); }).and_then([&] {
    return exec.sample(step.id);
  });
}

caf::result<engine::step_result> take_step(self_ptr self, const engine::step_batch& step) {
  auto& st = state(self);
  if (!st.executor)
    return to_caf({errc::internal, "the worker was given a step before it had loaded"});
  auto& exec = *st.executor;
  // The step that found out says why to its requests; those behind it are for the next worker. This
  // one goes on until the scheduler has passed the reason on.
  if (exec.spoiled())
    return spoiled();
  auto begun = begin_step(exec, step);
  if (begun && st.in_work.empty() && exec.finished(step.id)) {
    auto done = exec.collect(step.id);
    if (done)
      return std::move(*done);
    begun = fail(done.error());
  }
  if (!begun) {
    const auto why = failure_of(state(self), step.id, begun.error());
    lose_all(self, why);
    return why;
  }
  if (st.in_work.empty())
    tell(self, worker_core{self}, tick_atom::value);
  auto answer = self->make_response_promise<engine::step_result>();
  st.in_work.push_back({step.id, answer});
  return answer;
}

/// Hands over the steps that are done, and comes back for those that are not.
void look(self_ptr self) {
  auto& st = state(self);
  while (!st.in_work.empty() && st.executor->finished(st.in_work.front().id)) {
    auto oldest = std::move(st.in_work.front());
    st.in_work.pop_front();
    auto done = st.executor->collect(oldest.id);
    if (!done) {
      const auto why = failure_of(st, oldest.id, done.error());
      oldest.answer.deliver(why);
      return lose_all(self, why);
    }
    oldest.answer.deliver(std::move(*done));
    answer_status(self);
  }
  if (st.in_work.empty())
    return;
  std::this_thread::yield();
  tell(self, worker_core{self}, tick_atom::value);
}

/// Ends the worker of a spoiled executor, with the second question of its supervisor: the replica
/// dies with it, and by then whoever waited for the step that failed has the reason.
void end_if_spoiled(self_ptr self) {
  auto& st = state(self);
  if (st.executor && st.executor->spoiled() && std::exchange(st.ending, true))
    self->quit(spoiled());
}

/// For another scheduler, which a spoiled executor is of no use to.
caf::result<void> reset(self_ptr self) {
  auto& st = state(self);
  if (!st.executor)
    return caf::unit;
  lose_all(self, to_caf({errc::cancelled, "the worker was told to forget its steps"}));
  if (!st.executor->spoiled())
    return caf::unit;
  self->quit(spoiled());
  return spoiled();
}

caf::result<std::uint64_t> status(self_ptr self) {
  auto& st = state(self);
  end_if_spoiled(self);
  if (st.in_work.empty())
    return mailbox_depth(self);
  st.asked.push_back(self->make_response_promise<std::uint64_t>());
  return st.asked.back();
}

} // namespace

worker_core::behavior_type worker(self_ptr self, worker_options options) {
  state(self).options = std::move(options);
  return {
      [self](load_atom) { return load(state(self)); },
      [self](const engine::step_batch& step) { return take_step(self, step); },
      [self](reset_atom) { return reset(self); },
      [self](status_atom) { return status(self); },
      [self](tick_atom) { look(self); },
  };
}

} // namespace troupe::actors
