#include "actors/backend/custom_instance.hpp"

#include "actors/backend/custom_exchange.hpp"
#include "troupe/base/log.hpp"

#include <fmt/core.h>

#include <array>
#include <utility>

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

void instance_state::execute(const custom_job& job) {
  if (!backend_ || !job.sink->wanted())
    return;
  const auto way = std::make_shared<custom_exchange>(options_.model, job.request, job.sink);
  const std::array<backends::exchange_ptr, 1> all{way};
  const auto done = guarded(where("execute"), [&] { return backend_->execute(all); });
  if (!done)
    way->fail(done.error());
  else if (!*options_.model->decoupled && !way->ended())
    way->fail({errc::internal, where("execute") + " returned without a response"});
}

custom_instance::behavior_type instance_state::make_behavior(instance_options options) {
  options_ = std::move(options);
  return {
      [this](load_atom) { return load(); },
      [this](status_atom) { return watch(); },
      [this](const custom_job_ptr& job) {
        execute(*job);
        return true;
      },
      [](reset_atom) {},
      [](tick_atom) {},
  };
}

custom_instance::behavior_type run_instance(custom_instance::stateful_pointer<instance_state> self,
                                            instance_options options) {
  return state(self).make_behavior(std::move(options));
}

} // namespace troupe::actors
