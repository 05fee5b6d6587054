#include "actors/router/router.hpp"

#include <fmt/core.h>

#include <utility>
#include <vector>

namespace troupe::actors {

namespace {

constexpr std::chrono::minutes scheduler_limit{5};

} // namespace

caf::result<accepted> router_state::submit(engine::submission request, const token_sink& sink) {
  if (draining_)
    return to_caf({errc::draining, "the cluster is shutting down and takes no new requests"});
  const auto replica = replicas_->choose(request.model);
  if (!replica && !find_model(*options_.desk->view(), request.model))
    return to_caf({errc::not_found, fmt::format("there is no model '{}'", request.model)});
  if (!replica)
    return to_caf({errc::busy, fmt::format("no replica of model '{}' is ready; try again soon",
                                           request.model)});
  const auto prompt_tokens = static_cast<std::uint32_t>(request.prompt.size());
  auto opened = hub_->open(std::move(request), *replica);
  if (!opened)
    return to_caf(opened.error());
  replicas_->sent(*replica, prompt_tokens);
  auto answer = self_->make_response_promise<accepted>();
  asked_.emplace(opened->id, answer);
  forward(std::move(*opened), sink);
  return answer;
}

void router_state::forward(engine::submission request, const token_sink& sink) {
  const auto id = request.id;
  const auto scheduler = schedulers_.at(*hub_->replica_of(id));
  sinks_.emplace(id, sink);
  auto& of_sink = by_sink_[sink->address()];
  if (of_sink.empty())
    self_->monitor(sink);
  of_sink.insert(id);
  ask(self_, scheduler, scheduler_limit, submit_atom::value, std::move(request))
      .then(
          [this, id](const accepted& taken) {
            if (auto waiting = asked_.extract(id))
              waiting.mapped().deliver(taken);
          },
          [this, id](const caf::error& why) { refuse(id, why); });
}

/// Answers a submission that no scheduler has accepted with an error; its sink hears nothing.
void router_state::refuse(request_id id, const caf::error& why) {
  forget(id);
  if (auto waiting = asked_.extract(id))
    waiting.mapped().deliver(why);
}

void router_state::take(const engine::token_batch& batch) {
  std::map<caf::actor_addr, std::pair<token_sink, engine::token_batch>> out;
  for (const auto& chunk : batch.chunks) {
    auto next = hub_->deliver(chunk);
    const auto sink = sinks_.find(chunk.request);
    if (!next || sink == sinks_.end())
      continue;
    auto& [handle, sent] = out[sink->second->address()];
    handle = sink->second;
    sent.replica = batch.replica;
    sent.chunks.push_back(std::move(*next));
    if (chunk.finish != engine::finish_reason::none) {
      replicas_->ended(batch.replica);
      forget(chunk.request);
    }
  }
  for (auto& [address, one] : out)
    tell(self_, one.first, std::move(one.second));
}

void router_state::cancel(request_id id) {
  const auto replica = hub_->replica_of(id);
  if (!replica)
    return;
  if (const auto at = schedulers_.find(*replica); at != schedulers_.end())
    tell(self_, at->second, cancel_atom::value, id);
}

/// Ends a stream here and now: with an error when it was not accepted yet, else with a last chunk.
void router_state::end_stream(request_id id, engine::finish_reason finish, const caf::error& why) {
  if (asked_.contains(id))
    return refuse(id, why);
  auto last = hub_->end(id, finish, from_caf(why));
  const auto sink = sinks_.find(id);
  if (last && sink != sinks_.end())
    tell(self_, sink->second, engine::token_batch{{}, {std::move(*last)}});
  forget(id);
}

void router_state::attach(replica_id replica, const std::string& model,
                          const scheduler_actor& scheduler) {
  replicas_->add(replica, model);
  schedulers_[replica] = scheduler;
}

void router_state::detach(replica_id replica, const caf::error& why) {
  replicas_->remove(replica);
  schedulers_.erase(replica);
  for (const auto id : hub_->streams_of(replica))
    end_stream(id, engine::finish_reason::error, why);
}

void router_state::take_load(const load_report& load) {
  replicas_->report(load.replica,
                    {.running = load.stats.running,
                     .waiting = load.stats.waiting,
                     .free_blocks = load.stats.blocks_total - load.stats.blocks_used});
  options_.metrics->set_mailbox("router", mailbox_depth(self_));
}

void router_state::on_down(const caf::down_msg& down) {
  const auto found = by_sink_.find(down.source);
  if (found == by_sink_.end())
    return;
  const auto streams = found->second;
  for (const auto id : streams) {
    cancel(id);
    forget(id);
  }
}

void router_state::forget(request_id id) {
  hub_->close(id);
  const auto sink = sinks_.find(id);
  if (sink == sinks_.end())
    return;
  const auto address = sink->second->address();
  sinks_.erase(sink);
  const auto of_sink = by_sink_.find(address);
  if (of_sink == by_sink_.end() || of_sink->second.erase(id) == 0 || !of_sink->second.empty())
    return;
  by_sink_.erase(of_sink);
  self_->demonitor(address);
}

std::uint64_t router_state::cut_all() {
  const auto streams = hub_->streams();
  for (const auto id : streams) {
    cancel(id);
    end_stream(id, engine::finish_reason::abort,
               to_caf({errc::draining, "the cluster is shutting down"}));
  }
  return streams.size();
}

router_core::behavior_type router_state::make_behavior(router_options options) {
  hub_ = std::make_unique<engine::hub>(options.hub, options.max_streams);
  replicas_ = std::make_unique<engine::replica_table>(options.policy);
  options_ = std::move(options);
  self_->set_down_handler([this](const caf::down_msg& down) { on_down(down); });
  return {
      [this](submit_atom, engine::submission& request, const token_sink& sink) {
        return submit(std::move(request), sink);
      },
      [this](cancel_atom, request_id id) { cancel(id); },
      [this](status_atom) { return options_.desk->view()->status; },
      [this](const engine::token_batch& batch) { take(batch); },
      [this](attach_atom, replica_id replica, const std::string& model,
             const scheduler_actor& scheduler) { attach(replica, model, scheduler); },
      [this](drain_atom, replica_id replica) { replicas_->remove(replica); },
      [this](detach_atom, replica_id replica, const caf::error& why) { detach(replica, why); },
      [this](const load_report& load) { take_load(load); },
      [this](drain_atom) {
        draining_ = true;
        return std::uint64_t{hub_->stats().open};
      },
      [this](cancel_atom) { return cut_all(); },
  };
}

router_core spawn_router(caf::actor_system& system, router_options options) {
  const auto behavior = [](router_core::stateful_pointer<router_state> self, router_options given) {
    return state(self).make_behavior(std::move(given));
  };
  return system.spawn(behavior, std::move(options));
}

} // namespace troupe::actors
