#include "actors/worker/worker.hpp"

#include <fmt/core.h>

namespace troupe::actors {

namespace {

caf::result<engine::executor_description> load(worker_state& st) {
  auto made = st.options.make();
  if (!made)
    return to_caf(made.error());
  if (auto loaded = (*made)->load(st.options.progress); !loaded)
    return to_caf(loaded.error());
  st.executor = std::move(*made);
  return st.executor->describe();
}

caf::result<engine::step_result> run_step(worker_state& st, const engine::step_batch& step) {
  if (!st.executor)
    return to_caf({errc::internal, "the worker was given a step before it had loaded"});
  auto& exec = *st.executor;
  auto done = exec.prepare(step)
                  .and_then([&] { return exec.launch(step.id); })
                  .and_then([&] { return exec.sample(step.id); })
                  .and_then([&] { return exec.collect(step.id); });
  if (done)
    return std::move(*done);
  exec.reset();
  return to_caf({done.error().code, fmt::format("step {}: {}", value(step.id), done.error().note)});
}

} // namespace

worker_actor::behavior_type worker(worker_actor::stateful_pointer<worker_state> self,
                                   worker_options options) {
  state(self).options = std::move(options);
  return {
      [self](load_atom) { return load(state(self)); },
      [self](const engine::step_batch& step) { return run_step(state(self), step); },
      [self](reset_atom) {
        if (state(self).executor)
          state(self).executor->reset();
      },
      [self](status_atom) { return mailbox_depth(self); },
  };
}

} // namespace troupe::actors
