#include "engine/route/router_impl.hpp"
#include "troupe/base/check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace troupe::engine {

stream_state* router::impl::find(request_id id) {
  const auto found = all.find(id);
  return found == all.end() ? nullptr : &found->second;
}

/// The stream, if this is what it waits for: an attempt that is not accepted yet.
stream_state* router::impl::find(request_id id, replica_id replica, std::uint32_t attempt) {
  auto* stream = find(id);
  const bool current = stream != nullptr && !stream->accepted && hub.replica_of(id) == replica &&
                       hub.journal(id)->attempt == attempt;
  return current ? stream : nullptr;
}

/// Accounts for a dispatch.
void router::impl::sent(stream_state& stream, const placement& what, const chosen_replica& where,
                        time_point now) {
  const auto& facts = *table.facts(where.id);
  const bool begun = what.numerics.has_value();
  stream.current = {.numerics = facts.numerics, .batch_invariant = facts.batch_invariant};
  stream.exact = !begun || (facts.numerics == stream.last.numerics && facts.batch_invariant &&
                            stream.last.batch_invariant);
  stream.accepted = false;
  stream.retry_at.reset();
  table.sent(what, where, now);
  ++counters.decisions;
  counters.prompt_tokens += what.hashes.tokens();
  counters.prompt_tokens_matched += where.cached_tokens;
}

/// Sends a stream that has no replica, or whose replica refused it, to one that can take it.
/// @return false when there is none
bool router::impl::place(request_id id, stream_state& stream, time_point now) {
  const auto& journal = *hub.journal(id);
  const bool begun = !journal.delivered.empty();
  std::vector<token_id> joined;
  if (begun) {
    joined.reserve(journal.prompt.size() + journal.delivered.size());
    joined = journal.prompt;
    joined.insert(joined.end(), journal.delivered.begin(), journal.delivered.end());
  }
  prompt_hashes hashes{hasher, begun ? joined : journal.prompt, journal.cache_salt};
  placement what{.model = journal.model,
                 .hashes = hashes,
                 .except = stream.tried,
                 .numerics = begun ? std::optional{stream.last.numerics} : std::nullopt};
  const auto where = table.choose(what, now);
  if (!where)
    return false;
  sent(stream, what, *where, now);
  auto next = hub.resume(id, where->id);
  TROUPE_CHECK(next.has_value(), "request {} is not open", value(id));
  if (stream.deadline)
    next->timeout = std::max(std::chrono::milliseconds{1},
                             std::chrono::ceil<std::chrono::milliseconds>(*stream.deadline - now));
  parked.erase(id);
  actions.dispatches.push_back({.replica = where->id, .request = std::move(*next)});
  return true;
}

/// The replica of a stream is gone: another one goes on, now or as soon as there is one.
void router::impl::lose(request_id id, const error& why, end_cause cause, time_point now) {
  auto& stream = all.at(id);
  const bool served = stream.accepted;
  cancel_at_replica(id); // it may only be slow, or draining
  park(id, stream);
  if (stream.cancelled)
    return end(id, finish_reason::abort, {errc::cancelled, "the request was withdrawn"});
  const bool died = cause == end_cause::died;
  if (died) {
    ++stream.deaths;
    stream.suspicion += served ? 2 : 1;
  }
  if (died && stream.suspicion >= 2 * config.deaths_max) {
    ++counters.poisoned;
    return end(id, finish_reason::error,
               {errc::limit_exceeded,
                fmt::format("{} replicas in a row stopped while they had this request, without "
                            "a token between; it is not tried again, for it may be what stops them "
                            "(the last one: {})",
                            stream.deaths, why.note)});
  }
  stream.why = why;
  stream.tried.clear();
  if (std::exchange(stream.at_door, false))
    stream.give_up_at.reset(); // now it waits as one that lost its replica
  if (!stream.give_up_at)
    stream.give_up_at = now + config.resume_limit;
  if (died && !served && stream.deaths > 1)
    stream.retry_at = now + config.suspect_wait;
  else
    (void)place(id, stream, now);
}

void router::impl::park(request_id id, stream_state& stream) {
  hub.park(id);
  stream.accepted = false;
  parked.insert(id);
}

/// A new request while no replica is up: it waits if one is expected back.
result<request_id> router::impl::wait_at_door(submission request, time_point now) {
  const error none{errc::peer_down,
                   fmt::format("no replica of model '{}' is ready; try again soon", request.model)};
  const auto until = expected_back.find(request.model);
  if (until == expected_back.end() || until->second <= now)
    return fail(none);
  const auto timeout = request.timeout;
  const auto opened = hub.open(std::move(request), {});
  if (!opened)
    return fail(opened.error());
  auto& stream = all[opened->id];
  stream.at_door = true;
  stream.give_up_at = until->second;
  stream.why = none;
  if (timeout.count() > 0 && timeout < longest_timeout)
    stream.deadline = now + timeout;
  park(opened->id, stream);
  return opened->id;
}

void router::impl::look_again(request_id id, stream_state& stream, time_point now) {
  stream.tried.clear();
  stream.retry_at.reset();
  (void)place(id, stream, now);
}

void router::impl::give_up(request_id id, const stream_state& stream) {
  if (stream.at_door)
    return end(id, finish_reason::error, stream.why);
  const auto waited = std::chrono::duration_cast<std::chrono::seconds>(config.resume_limit);
  end(id, finish_reason::error,
      {stream.why.code, fmt::format("{}; no other replica took the request within {} s",
                                    stream.why.note, waited.count())});
}

/// The replica has the stream, by its own word or by its tokens.
void router::impl::took(stream_state& stream) {
  stream.accepted = true;
  stream.tried.clear();
  if (!stream.give_up_at)
    return;
  stream.give_up_at.reset();
  if (std::exchange(stream.at_door, false))
    return;
  ++(stream.exact ? counters.migrations_exact : counters.migrations_inexact);
}

void router::impl::answer(request_id id, stream_state& stream, replica_id replica) {
  if (!std::exchange(stream.answered, true))
    actions.verdicts.push_back({.id = id, .outcome = replica});
}

void router::impl::deliver(const token_chunk& chunk, replica_id from) {
  auto next = hub.deliver(chunk);
  if (!next)
    return;
  auto& stream = all.at(chunk.request);
  if (!stream.accepted)
    took(stream);
  answer(chunk.request, stream, from);
  if (!chunk.ids.empty()) {
    stream.deaths = 0;
    stream.suspicion = 0;
    stream.last = stream.current;
  }
  actions.deliveries.push_back(std::move(*next));
  if (chunk.finish == finish_reason::none)
    return;
  table.ended(from);
  erase(chunk.request);
}

/// Ends a stream here: refused when its submitter waits for a verdict, else with a last chunk.
void router::impl::end(request_id id, finish_reason finish, error why) {
  const bool answered = all.at(id).answered;
  erase(id);
  if (answered) {
    actions.deliveries.push_back(*hub.end(id, finish, std::move(why)));
    return;
  }
  hub.close(id);
  actions.verdicts.push_back({.id = id, .outcome = fail(std::move(why))});
}

void router::impl::cancel_at_replica(request_id id) {
  if (const auto replica = hub.replica_of(id))
    actions.cancels.push_back({.replica = *replica, .id = id});
}

void router::impl::erase(request_id id) {
  parked.erase(id);
  all.erase(id);
}

} // namespace troupe::engine
