#include "actors/backend/custom_actor.hpp"

#include "actors/backend/process_instance.hpp"
#include "troupe/base/log.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace troupe::actors {

namespace {

constexpr std::chrono::hours call_limit{24 * 365};

std::uint32_t instances_of(const config::triton_model& model) {
  std::uint32_t count = 0;
  for (const auto& group : model.instance_groups)
    count += *group.count;
  return std::max(count, 1U);
}

} // namespace

custom_state::~custom_state() {
  if (queue_)
    queue_->close(
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
  queue_ = std::make_shared<custom_queue>(model, *options_.model.max_queued_requests);
  own_process_ = model->parameter("PROCESS") == "own";
  for (std::uint32_t i = 0; i < instances_of(*model); ++i)
    seats_.push_back({spawn_one({.model = model,
                                 .version = options_.model.version,
                                 .number = i,
                                 .host = host,
                                 .queue = queue_})});
  for (std::size_t i = 0; i < seats_.size(); ++i)
    ask(self_, seats_[i].instance, call_limit, load_atom::value)
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
    ask(self_, seats_[index].instance, call_limit, status_atom::value)
        .then([] {}, [this, index](const caf::error&) { lose(index); });
  if (!all_there())
    return dispatch();
  if (std::exchange(began_, true))
    options_.tell_standing(true);
  else if (loaded_.pending())
    loaded_.deliver(caf::unit);
  dispatch();
}

/// What waits goes on waiting, for this instance or another.
void custom_state::lose(std::size_t index) {
  seats_[index].there = false;
  options_.numbers->actor_restarted("backend_process");
  if (began_)
    options_.tell_standing(false);
  ask(self_, seats_[index].instance, call_limit, load_atom::value)
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
  if (!sink->wanted())
    return;
  if (auto taken = queue_->push(std::move(request), sink, std::chrono::steady_clock::now()); !taken)
    return end_with_error(*sink, std::move(taken.error()));
  dispatch();
}

/// Wakes instances for what waits. One that serves finds it by itself.
void custom_state::dispatch() {
  if (!queue_)
    return;
  const auto now = std::chrono::steady_clock::now();
  const auto ahead = queue_->look(now);
  auto wanted = ahead.batch && *ahead.batch <= now ? queue_->size() : 0;
  for (std::size_t i = 0; i < seats_.size() && wanted > 0; ++i) {
    if (seats_[i].busy || !seats_[i].there)
      continue;
    rouse(i);
    --wanted;
  }
  come_back(ahead, now);
}

/// When there will be something to do though nothing comes.
void custom_state::come_back(const custom_queue::outlook& ahead, time_point now) {
  auto at = ahead.late.value_or(time_point::max());
  if (ahead.batch && *ahead.batch > now)
    at = std::min(at, *ahead.batch);
  if (at == time_point::max() || (tick_at_ && *tick_at_ <= at))
    return;
  tick_at_ = at;
  tell_later(self_, at - now, tick_atom::value);
}

void custom_state::rouse(std::size_t index) {
  seats_[index].busy = true;
  ask(self_, seats_[index].instance, call_limit, execute_atom_v)
      .then(
          [this, index](bool there) {
            seats_[index].busy = false;
            // Without its process, which it is about to say.
            seats_[index].there = seats_[index].there && there;
            dispatch();
          },
          [](const caf::error&) {});
}

/// Requests that wait or are in work.
std::uint64_t custom_state::unanswered() const {
  const auto busy =
      std::count_if(seats_.begin(), seats_.end(), [](const seat& s) { return s.busy; });
  return (queue_ ? queue_->size() : 0) + static_cast<std::uint64_t>(busy);
}

custom_core::behavior_type custom_state::make_behavior(custom_options options) {
  options_ = std::move(options);
  // Without one of its instances a model begins anew, as the node has it.
  self_->set_down_handler([this](const caf::down_msg&) { self_->quit(caf::exit_reason::kill); });
  return {
      [this](execute_atom, inference_request_ptr request, response_sink_ptr sink) {
        execute(std::move(request), std::move(sink));
      },
      [this](abandon_atom, const response_sink_ptr& owner) {
        if (queue_)
          queue_->abandon(owner);
      },
      [](const engine::token_batch&) {},
      [this](load_atom) { return load(); },
      [](attach_atom, const router_actor&) {},
      [this](status_atom) { return unanswered(); },
      [this](tick_atom) {
        tick_at_.reset();
        dispatch();
      },
  };
}

custom_core::behavior_type run_custom(custom_core::stateful_pointer<custom_state> self,
                                      custom_options options) {
  return state(self).make_behavior(std::move(options));
}

} // namespace troupe::actors
