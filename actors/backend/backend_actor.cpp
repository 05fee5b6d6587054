#include "actors/backend/backend_actor.hpp"

#include "actors/backend/end_with_error.hpp"
#include "actors/wake_batch.hpp"
#include "troupe/base/log.hpp"

#include <algorithm>
#include <utility>
#include <vector>

namespace troupe::actors {

namespace {

constexpr std::chrono::minutes submit_limit{5};

} // namespace

backend_state::~backend_state() {
  // The router outlives it, and what watches it keeps the memory of who watched.
  if (router_)
    self_->demonitor(router_->address());
  if (backend_)
    backend_->finalize();
  fail_all({errc::peer_down, "the backend of model '" + options_.model.name + "' has stopped"});
}

caf::result<void> backend_state::initialize() {
  auto made = options_.make();
  auto completed = made->auto_complete_config(options_.model);
  if (!completed)
    return to_caf(completed.error());
  if (auto ready = made->initialize(*completed, *this); !ready)
    return to_caf(ready.error());
  options_.model = std::move(*completed);
  backend_ = std::move(made);
  return {};
}

void backend_state::execute(inference_request_ptr request, response_sink_ptr sink) {
  if (!backend_) {
    end_with_error(*sink, {errc::busy, "model '" + options_.model.name + "' is still loading"});
    return;
  }
  if (!sink->wanted())
    return;
  if (const auto limit = *options_.model.max_queued_requests; mailbox_depth(self_) > limit) {
    end_with_error(*sink, {errc::busy, fmt::format("more than {} messages wait for the backend of "
                                                   "model '{}'; try again later",
                                                   limit, options_.model.name)});
    return;
  }
  backend_->execute(std::move(request), std::move(sink));
}

void backend_state::submit(engine::submission request, std::shared_ptr<token_stream> stream,
                           response_sink_ptr owner) {
  if (!router_) {
    stream->on_failed({errc::peer_down, "the router is restarting; send the request again"});
    return;
  }
  if (!options_.route.empty())
    request.model = options_.route;
  const auto number = ++submissions_;
  pending_[number] = {stream, owner};
  ask(self_, router_, submit_limit, submit_atom::value, std::move(request),
      caf::actor_cast<token_sink>(self_))
      .then(
          [this, number, stream, owner](const accepted& taken) {
            if (pending_.erase(number) > 0)
              take_accepted(taken, {stream, owner});
            else
              tell(self_, router_, cancel_atom::value, taken.id);
          },
          [this, number, stream](const caf::error& why) {
            if (pending_.erase(number) > 0)
              stream->on_failed(from_caf(why));
          });
}

void backend_state::take_accepted(const accepted& taken, live_stream stream) {
  stream.tokens->on_accepted(taken);
  streams_.emplace(taken.id, std::move(stream));
}

void backend_state::take_tokens(const engine::token_batch& batch) {
  // One wake of an edge for all sequences of the step; a single one is written at once.
  const wake_batch together{batch.chunks.size() > 1};
  for (const auto& chunk : batch.chunks) {
    const auto found = streams_.find(chunk.request);
    if (found == streams_.end())
      continue;
    const bool goes_on = found->second.tokens->on_chunk(chunk);
    const bool ended = chunk.finish != engine::finish_reason::none;
    if (!goes_on && !ended)
      tell(self_, router_, cancel_atom::value, chunk.request);
    if (!goes_on || ended)
      streams_.erase(found);
  }
}

void backend_state::abandon(const response_sink_ptr& owner) {
  std::erase_if(pending_, [&](const auto& item) { return item.second.owner == owner; });
  for (auto at = streams_.begin(); at != streams_.end();) {
    if (at->second.owner != owner) {
      ++at;
      continue;
    }
    tell(self_, router_, cancel_atom::value, at->first);
    at = streams_.erase(at);
  }
}

void backend_state::use_router(const router_actor& router) {
  router_ = router;
  self_->monitor(router_);
}

void backend_state::fail_all(const error& why) {
  auto streams = std::exchange(streams_, {});
  auto pending = std::exchange(pending_, {});
  for (auto& [id, stream] : streams)
    stream.tokens->on_failed(why);
  for (auto& [number, stream] : pending)
    stream.tokens->on_failed(why);
}

backend_core::behavior_type backend_state::make_behavior(backend_options options) {
  options_ = std::move(options);
  self_->set_down_handler([this](const caf::down_msg& down) {
    if (!router_ || down.source != router_->address())
      return;
    router_ = nullptr;
    fail_all({errc::peer_down, "the router stopped; send the request again"});
  });
  return {
      [this](execute_atom, inference_request_ptr request, response_sink_ptr sink) {
        execute(std::move(request), std::move(sink));
      },
      [this](abandon_atom, const response_sink_ptr& owner) { abandon(owner); },
      [this](const engine::token_batch& batch) { take_tokens(batch); },
      [this](load_atom) { return initialize(); },
      [this](attach_atom, const router_actor& router) { use_router(router); },
      [this](status_atom) { return mailbox_depth(self_); },
  };
}

backend_host::backend_host(caf::actor_config& config, backend_options options)
    : super{config}, options_{std::move(options)}, brief_streams_{options_.brief_streams} {}

backend_host::behavior_type backend_host::make_behavior() {
  return state.make_behavior(std::move(options_));
}

caf::resumable::resume_result backend_host::resume(caf::execution_unit* unit, std::size_t most) {
  const std::lock_guard own{gate_};
  return super::resume(unit, most);
}

void backend_host::enqueue(caf::mailbox_element_ptr what, caf::execution_unit* unit) {
  if (!take_at_once(*what))
    super::enqueue(std::move(what), unit);
}

bool backend_host::take_at_once(caf::mailbox_element& what) {
  if (!brief_streams_ || !what.mid.is_async() ||
      !what.content().match_elements<engine::token_batch>())
    return false;
  const auto& batch = what.content().get_as<engine::token_batch>(0);
  if (batch.chunks.size() > wake_batch::few_together)
    return false;
  const std::unique_lock lock{gate_, std::try_to_lock};
  // A mailbox that is blocked is empty, its reader asleep and the actor alive.
  if (!lock || !mailbox().blocked())
    return false;
  try {
    state.take_tokens(batch);
  } catch (...) {
    // As in its own thread: the actor dies of it, and not the sender.
    caf::anon_send_exit(address(), caf::exit_reason::unhandled_exception);
  }
  return true;
}

} // namespace troupe::actors
