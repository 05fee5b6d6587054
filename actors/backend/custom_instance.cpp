#include "actors/backend/custom_instance.hpp"

#include "actors/backend/custom_exchange.hpp"
#include "troupe/base/log.hpp"

#include <fmt/core.h>

#include <chrono>
#include <utility>
#include <vector>

namespace troupe::actors {

instance_state::~instance_state() {
  if (!backend_)
    return;
  const auto ended = guarded(where("finalize"), [&]() -> result<void> {
    backend_->finalize();
    return {};
  });
  if (!ended)
    log_error("model {}: {}", options_.model->name, ended.error().note);
}

std::string instance_state::where(std::string_view function) const {
  return fmt::format("{} of the backend '{}'", function, *options_.model->backend);
}

caf::result<void> instance_state::load() {
  const auto library = backend_library::open(options_.model->library, *options_.model->backend);
  if (!library)
    return to_caf(library.error());
  auto made = library->make();
  if (!made)
    return to_caf(made.error());
  const auto facts = facts_of(*options_.model, options_.version, options_.number);
  const auto ready =
      guarded(where("initialize"), [&] { return (*made)->initialize(facts, *options_.host); });
  if (!ready)
    return to_caf(ready.error());
  backend_ = std::move(*made);
  return {};
}

/// Its end is the end of the actor, which CAF tells whoever asked.
caf::result<void> instance_state::watch() {
  auto typed = self_->make_response_promise<void>();
  lost_ = typed;
  return typed;
}

/// Without a message between two batches.
void instance_state::serve() {
  while (backend_) {
    auto jobs = options_.queue->take(options_.number, std::chrono::steady_clock::now());
    if (jobs.empty())
      return;
    execute(std::move(jobs));
  }
}

void instance_state::execute(custom_batch jobs) {
  const auto ways = open_ways(options_.model, std::move(jobs));
  if (ways.empty())
    return;
  const std::vector<backends::exchange_ptr> all{ways.begin(), ways.end()};
  close_ways(ways, *options_.model,
             guarded(where_execute_, [&] { return backend_->execute(all); }));
}

custom_instance::behavior_type instance_state::make_behavior(instance_options options) {
  options_ = std::move(options);
  where_execute_ = where("execute");
  return {
      [this](load_atom) { return load(); },
      [this](status_atom) { return watch(); },
      [this](execute_atom) { serve(); },
      [](reset_atom) {},
      [](tick_atom) {},
  };
}

custom_instance::behavior_type run_instance(custom_instance::stateful_pointer<instance_state> self,
                                            instance_options options) {
  return state(self).make_behavior(std::move(options));
}

} // namespace troupe::actors
