#include "actors/backend/custom_actor.hpp"

#include "actors/backend/process_instance.hpp"
#include "troupe/base/log.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace troupe::actors {

namespace {

std::uint32_t instances_of(const config::triton_model& model) {
  std::uint32_t count = 0;
  for (const auto& group : model.instance_groups)
    count += *group.count;
  return std::max(count, 1U);
}

} // namespace

custom_state::~custom_state() {
  options_.queue->close(
      {errc::peer_down, "the backend of model '" + options_.model.name + "' has stopped"});
  for (const auto& seat : seats_)
    caf::anon_send_exit(seat.instance, caf::exit_reason::user_shutdown);
}

custom_instance custom_state::spawn_one(const instance_options& options) {
  if (own_process_)
    return self_->spawn<caf::detached + caf::monitored>(run_process_instance, options);
  return self_->spawn<caf::detached + caf::monitored>(run_instance, options);
}

/// Answered when every instance is initialized, or the first one failed.
caf::result<void> custom_state::load() {
  auto typed = self_->make_response_promise<void>();
  // CAF's typed promise of nothing cannot be kept; the one inside can.
  loaded_ = typed;
  const auto model = std::make_shared<const config::triton_model>(options_.model.triton);
  const auto host = std::make_shared<library_host>(model->name, options_.numbers);
  own_process_ = model->parameter("PROCESS") == "own";
  options_.queue->set_reminder([to = custom_core{self_}] { post(to, tick_atom::value); });
  for (std::uint32_t i = 0; i < instances_of(*model); ++i) {
    seats_.push_back({spawn_one({.model = model,
                                 .version = options_.model.version,
                                 .number = i,
                                 .host = host,
                                 .queue = options_.queue})});
    options_.queue->add_instance([to = seats_.back().instance] { post(to, execute_atom_v); });
  }
  for (std::size_t i = 0; i < seats_.size(); ++i)
    ask_without_limit(self_, seats_[i].instance, load_atom::value)
        .then([this, i] { gain(i); },
              [this](const caf::error& why) {
                if (loaded_.pending())
                  loaded_.deliver(why);
              });
  return typed;
}

bool custom_state::all_there() const {
  return std::all_of(seats_.begin(), seats_.end(), [](const seat& s) { return s.there; });
}

void custom_state::gain(std::size_t index) {
  seats_[index].there = true;
  if (own_process_)
    ask_without_limit(self_, seats_[index].instance, status_atom::value)
        .then([] {}, [this, index](const caf::error&) { lose(index); });
  options_.queue->enter(index);
  if (!all_there())
    return;
  if (std::exchange(began_, true))
    options_.tell_standing(true);
  else if (loaded_.pending())
    loaded_.deliver(caf::unit);
}

/// What waits goes on waiting, for this instance or another.
void custom_state::lose(std::size_t index) {
  seats_[index].there = false;
  options_.queue->leave(index);
  options_.numbers->actor_restarted("backend_process");
  if (began_)
    options_.tell_standing(false);
  ask_without_limit(self_, seats_[index].instance, load_atom::value)
      .then([this, index] { gain(index); }, [](const caf::error&) {});
}

void custom_state::execute(inference_request_ptr request, response_sink_ptr sink) {
  const auto& model = options_.model.name;
  if (!began_)
    return end_with_error(*sink, {errc::busy, "model '" + model + "' is still loading"});
  if (!request->tensors)
    return end_with_error(
        *sink, {errc::invalid_argument, fmt::format("model '{}' takes tensors; send them to "
                                                    "/v2/models/{}/infer",
                                                    model, model)});
  options_.queue->let_in(std::move(request), std::move(sink));
}

/// Sees to what is due in the queue, and comes back for what is to come.
void custom_state::look() {
  const auto now = std::chrono::steady_clock::now();
  const auto again = options_.queue->look(now);
  if (!again || (tick_at_ && *tick_at_ <= *again))
    return;
  tick_at_ = again;
  tell_later(self_, *again - now, tick_atom::value);
}

custom_core::behavior_type custom_state::make_behavior(custom_options options) {
  options_ = std::move(options);
  // Without one of its instances a model begins anew, as the node has it.
  self_->set_down_handler([this](const caf::down_msg&) { self_->quit(caf::exit_reason::kill); });
  return {
      [this](execute_atom, inference_request_ptr request, response_sink_ptr sink) {
        execute(std::move(request), std::move(sink));
      },
      [this](abandon_atom, const response_sink_ptr& owner) { options_.queue->abandon(owner); },
      [](const engine::token_batch&) {},
      [this](load_atom) { return load(); },
      [](attach_atom, const router_actor&) {},
      [this](status_atom) { return std::uint64_t{options_.queue->unanswered()}; },
      [this](tick_atom) {
        tick_at_.reset();
        look();
      },
  };
}

custom_core::behavior_type run_custom(custom_core::stateful_pointer<custom_state> self,
                                      custom_options options) {
  return state(self).make_behavior(std::move(options));
}

} // namespace troupe::actors
