#include "engine/route/router.hpp"

#include "engine/route/router_impl.hpp"

#include <fmt/format.h>

#include <utility>

namespace troupe::engine {

namespace {

/// Errors that say something of the replica and nothing of the request.
bool others_may_take_it(errc code) {
  switch (code) {
  case errc::busy:
  case errc::pool_exhausted:
  case errc::out_of_memory:
  case errc::draining:
  case errc::conflict:
  case errc::timed_out:
    return true;
  default:
    return false;
  }
}

cache_view::options cache_options(const router_config& config) {
  return {.blocks_max = config.index_blocks_max, .snapshot_retry = config.snapshot_retry};
}

} // namespace

router::impl::impl(const router_config& given)
    : config{given}, hasher{given.hash_key}, hub{given.hub, given.max_streams},
      table{{.policy = given.policy, .cache = cache_options(given)}} {}

router::router(router_config config) : impl_{std::make_unique<impl>(config)} {}

router::~router() = default;

result<request_id> router::submit(submission request, time_point now) {
  auto& my = *impl_;
  if (my.draining)
    return fail(errc::draining, "the cluster is shutting down and takes no new requests");
  if (!my.table.knows(request.model))
    return fail(errc::not_found, fmt::format("there is no model '{}'", request.model));
  request.delivered.clear();
  prompt_hashes hashes{my.hasher, request.prompt, request.cache_salt};
  placement what{.model = request.model, .hashes = hashes, .except = {}, .numerics = {}};
  const auto where = my.table.choose(what, now);
  if (!where)
    return my.wait_at_door(std::move(request), now);
  const auto timeout = request.timeout;
  // The hub gets a copy, for `what` looks into this one.
  auto opened = my.hub.open(request, where->id);
  if (!opened)
    return fail(opened.error());
  const auto id = opened->id;
  auto& stream = my.all[id];
  if (timeout.count() > 0 && timeout < longest_timeout)
    stream.deadline = now + timeout;
  my.sent(stream, what, *where, now);
  my.actions.dispatches.push_back({.replica = where->id, .request = std::move(*opened)});
  return id;
}

void router::accepted(request_id id, replica_id replica, std::uint32_t attempt, time_point) {
  auto* stream = impl_->find(id, replica, attempt);
  if (stream == nullptr)
    return;
  impl_->took(*stream);
  impl_->answer(id, *stream, replica);
}

void router::rejected(request_id id, replica_id replica, std::uint32_t attempt, const error& why,
                      time_point now) {
  auto* stream = impl_->find(id, replica, attempt);
  if (stream == nullptr || why.code == errc::peer_down)
    return; // stale, or the replica is gone: replica_down says so for all of its streams
  impl_->table.ended(replica);
  if (stream->cancelled)
    return impl_->end(id, finish_reason::abort, {errc::cancelled, "the request was withdrawn"});
  if (!others_may_take_it(why.code))
    return impl_->end(id, finish_reason::error, why);
  if (why.code == errc::timed_out)
    impl_->cancel_at_replica(id);
  stream->tried.push_back(replica);
  stream->why = why;
  if (impl_->place(id, *stream, now))
    return;
  if (!stream->give_up_at)
    return impl_->end(id, finish_reason::error, why);
  impl_->park(id, *stream);
  stream->retry_at = now + impl_->config.busy_retry;
}

void router::tokens(const token_batch& batch, time_point) {
  for (const auto& chunk : batch.chunks)
    impl_->deliver(chunk, batch.replica);
}

void router::cancel(request_id id, time_point) {
  auto* stream = impl_->find(id);
  if (stream == nullptr)
    return;
  if (impl_->parked.contains(id))
    return impl_->end(id, finish_reason::abort, {errc::cancelled, "the request was withdrawn"});
  stream->cancelled = true;
  impl_->cancel_at_replica(id);
}

void router::forget(request_id id) {
  if (impl_->find(id) == nullptr)
    return;
  impl_->cancel_at_replica(id);
  if (const auto replica = impl_->hub.replica_of(id))
    impl_->table.ended(*replica);
  impl_->hub.close(id);
  impl_->erase(id);
}

void router::replica_up(replica_facts facts, time_point now) {
  const auto* known = impl_->table.facts(facts.id);
  if (known != nullptr && *known == facts)
    return;
  if (known != nullptr)
    replica_down(facts.id, {errc::peer_down, "the replica was restarted"}, end_cause::died, now);
  impl_->expected_back.erase(facts.model);
  impl_->table.add(std::move(facts), now);
  const auto waiting = impl_->parked;
  for (const auto id : waiting)
    impl_->look_again(id, impl_->all.at(id), now);
}

void router::replica_down(replica_id replica, error why, end_cause cause, time_point now) {
  std::erase_if(impl_->expected_back, [&](const auto& one) { return one.second <= now; });
  if (const auto* facts = impl_->table.facts(replica); facts != nullptr && cause == end_cause::died)
    impl_->expected_back[facts->model] = now + impl_->config.resume_limit;
  impl_->table.remove(replica);
  for (const auto id : impl_->hub.streams_of(replica))
    impl_->lose(id, why, cause, now);
}

void router::replica_draining(replica_id replica) { impl_->table.set_draining(replica); }

void router::load(replica_id replica, const replica_load& load) {
  impl_->table.report(replica, load);
}

void router::kv_events(const kv_index_report& report, time_point now) {
  if (auto* cache = impl_->table.cache())
    cache->take(report, now);
}

void router::expire(time_point now) {
  const auto waiting = impl_->parked;
  for (const auto id : waiting) {
    auto& stream = impl_->all.at(id);
    if (stream.deadline && *stream.deadline <= now)
      impl_->end(id, finish_reason::error,
                 {errc::timed_out, "the request's time-out passed while it waited for a replica"});
    else if (stream.give_up_at && *stream.give_up_at <= now)
      impl_->give_up(id, stream);
    else if (stream.retry_at && *stream.retry_at <= now)
      impl_->look_again(id, stream, now);
  }
  if (auto* cache = impl_->table.cache())
    cache->expire(now);
}

std::optional<time_point> router::next_deadline() const {
  std::optional<time_point> first;
  const auto take = [&](const std::optional<time_point>& t) {
    if (t && (!first || *t < *first))
      first = t;
  };
  for (const auto id : impl_->parked) {
    const auto& stream = impl_->all.at(id);
    take(stream.deadline);
    take(stream.give_up_at);
    take(stream.retry_at);
  }
  if (auto* cache = impl_->table.cache())
    take(cache->next_deadline());
  return first;
}

std::uint64_t router::drain() {
  impl_->draining = true;
  return impl_->all.size();
}

std::uint64_t router::cut_all() {
  const auto open = impl_->hub.streams();
  for (const auto id : open) {
    impl_->cancel_at_replica(id);
    impl_->end(id, finish_reason::abort, {errc::draining, "the cluster is shutting down"});
  }
  return open.size();
}

router_actions router::take_actions() {
  auto actions = std::exchange(impl_->actions, {});
  if (auto* cache = impl_->table.cache())
    actions.snapshots = cache->take_wanted();
  impl_->counters.snapshots += actions.snapshots.size();
  return actions;
}

router_stats router::stats() const {
  auto stats = impl_->counters;
  stats.hub = impl_->hub.stats();
  stats.parked = static_cast<std::uint32_t>(impl_->parked.size());
  if (const auto* cache = impl_->table.cache()) {
    stats.index_blocks = cache->size();
    stats.index_bytes = cache->bytes();
    stats.index_gaps = cache->gaps();
  }
  return stats;
}

std::vector<block_hash> router::indexed(replica_id replica) const {
  const auto* cache = impl_->table.cache();
  return cache == nullptr ? std::vector<block_hash>{} : cache->known(replica);
}

bool router::knows(std::string_view model) const { return impl_->table.knows(model); }

} // namespace troupe::engine
