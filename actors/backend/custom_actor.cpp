#include "actors/backend/custom_actor.hpp"

#include "actors/backend/process_instance.hpp"
#include "troupe/base/log.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace troupe::actors {

namespace {

constexpr std::chrono::hours call_limit{24 * 365};

void end_with_error(response_sink& sink, error why) {
  response_part last;
  last.finish = engine::finish_reason::error;
  last.why = std::move(why);
  sink.on_part(std::move(last));
}

std::uint32_t instances_of(const config::triton_model& model) {
  std::uint32_t count = 0;
  for (const auto& group : model.instance_groups)
    count += *group.count;
  return std::max(count, 1U);
}

} // namespace

custom_state::~custom_state() {
  for (const auto& job : waiting_)
    end_with_error(*job->sink, {errc::peer_down,
                                "the backend of model '" + options_.model.name + "' has stopped"});
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
  for (std::uint32_t i = 0; i < instances_of(*model); ++i)
    seats_.push_back({spawn_one(
        {.model = model, .version = options_.model.version, .number = i, .host = host})});
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
  if (const auto limit = *options_.model.max_queued_requests; waiting_.size() >= limit)
    return end_with_error(
        *sink, {errc::busy,
                fmt::format("{} requests wait for model '{}'; try again later", limit, model)});
  waiting_.push_back(
      std::make_shared<const custom_job>(custom_job{std::move(request), std::move(sink)}));
  dispatch();
}

void custom_state::dispatch() {
  for (std::size_t i = 0; i < seats_.size() && !waiting_.empty(); ++i) {
    if (seats_[i].busy || !seats_[i].there)
      continue;
    const auto job = std::move(waiting_.front());
    waiting_.pop_front();
    give(i, job);
  }
}

void custom_state::give(std::size_t index, const custom_job_ptr& job) {
  seats_[index].busy = true;
  if (!std::exchange(job->accepted, true))
    job->sink->on_accepted(request_id{}, 0);
  ask(self_, seats_[index].instance, call_limit, job)
      .then(
          [this, index, job](bool begun) {
            seats_[index].busy = false;
            if (begun)
              return dispatch();
            // Its process has ended, which it is about to say.
            seats_[index].there = false;
            waiting_.push_front(job);
            dispatch();
          },
          [job](const caf::error& why) { end_with_error(*job->sink, from_caf(why)); });
}

/// Requests that wait or are in work.
std::uint64_t custom_state::unanswered() const {
  const auto busy =
      std::count_if(seats_.begin(), seats_.end(), [](const seat& s) { return s.busy; });
  return waiting_.size() + static_cast<std::uint64_t>(busy);
}

void custom_state::abandon(const response_sink_ptr& owner) {
  std::erase_if(waiting_, [&](const custom_job_ptr& job) { return job->sink == owner; });
}

backend_core::behavior_type custom_state::make_behavior(custom_options options) {
  options_ = std::move(options);
  // Without one of its instances a model begins anew, as the node has it.
  self_->set_down_handler([this](const caf::down_msg&) { self_->quit(caf::exit_reason::kill); });
  return {
      [this](execute_atom, inference_request_ptr request, response_sink_ptr sink) {
        execute(std::move(request), std::move(sink));
      },
      [this](abandon_atom, const response_sink_ptr& owner) { abandon(owner); },
      [](const engine::token_batch&) {},
      [this](load_atom) { return load(); },
      [](attach_atom, const router_actor&) {},
      [this](status_atom) { return unanswered(); },
  };
}

backend_core::behavior_type run_custom(backend_core::stateful_pointer<custom_state> self,
                                       custom_options options) {
  return state(self).make_behavior(std::move(options));
}

} // namespace troupe::actors
