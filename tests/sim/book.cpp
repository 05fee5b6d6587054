#include "tests/sim/book.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace troupe::sim {

using engine::finish_reason;

namespace {

/// How late a time-out may be kept: a replica that stands still is noticed first.
constexpr auto deadline_slack = std::chrono::seconds{2};

} // namespace

void add(tally& sum, const tally& other) {
  constexpr std::array fields{&tally::requests,  &tally::whole,          &tally::refused,
                              &tally::aborted,   &tally::errors,         &tally::abandoned,
                              &tally::resumed,   &tally::resumed_midway, &tally::poisoned,
                              &tally::timed_out, &tally::tokens,         &tally::cached_tokens,
                              &tally::inexact};
  for (const auto field : fields)
    sum.*field += other.*field;
}

record& book::at(request_id id) {
  const auto found = records_.find(id);
  TROUPE_PROMISE(found != records_.end(), "nobody asked for request {}", value(id));
  return found->second;
}

void book::opened(record fresh) {
  const auto id = fresh.asked.id;
  ++open_;
  ++tally_.requests;
  fresh.history = engine::test::hash_history(fresh.asked.prompt);
  TROUPE_PROMISE(records_.emplace(id, std::move(fresh)).second, "request {} is there twice",
                 value(id));
}

void book::dispatched(const engine::submission& sent, const engine::replica_facts& to,
                      time_point now) {
  auto& of = at(sent.id);
  log_.note(now, "request {} attempt {} goes to replica {} with {} tokens", value(sent.id),
            sent.attempt, value(to.id), sent.delivered.size());
  TROUPE_PROMISE(!of.ended, "request {} goes on after its end", value(sent.id));
  TROUPE_PROMISE(sent.attempt > of.attempt, "request {}: attempt {} after {}", value(sent.id),
                 sent.attempt, of.attempt);
  TROUPE_PROMISE(sent.delivered == of.seen, "request {}: {} tokens sent, {} delivered",
                 value(sent.id), sent.delivered.size(), of.seen.size());
  TROUPE_PROMISE(sent.prompt == of.asked.prompt && sent.sampling == of.asked.sampling &&
                     sent.model == of.asked.model && sent.cache_salt == of.asked.cache_salt &&
                     sent.priority == of.asked.priority,
                 "request {} changed on its way", value(sent.id));
  TROUPE_PROMISE(to.model == of.asked.model, "request {} goes to a replica of '{}'", value(sent.id),
                 to.model);
  if (of.deadline)
    TROUPE_PROMISE(sent.timeout.count() > 0 &&
                       now + sent.timeout <=
                           std::max(*of.deadline, now) + std::chrono::milliseconds{1},
                   "request {} is given {} ms more", value(sent.id), sent.timeout.count());
  if (of.attempt > 0) {
    ++tally_.resumed;
    tally_.resumed_midway += of.seen.empty() ? 0 : 1;
    const bool exact = to.numerics == of.numerics && to.batch_invariant && of.batch_invariant;
    tally_.inexact += of.seen.empty() || exact ? 0 : 1;
  }
  of.attempt = sent.attempt;
  of.accepted = false;
  of.replica = to.id;
  of.numerics = to.numerics;
  of.batch_invariant = to.batch_invariant;
}

void book::accepted(request_id id, replica_id replica, std::uint32_t attempt) {
  if (const auto found = records_.find(id); found != records_.end() &&
                                            found->second.attempt == attempt &&
                                            found->second.replica == replica)
    found->second.accepted = true;
}

void book::rejected(request_id id, std::uint32_t attempt) {
  if (const auto found = records_.find(id);
      found != records_.end() && found->second.attempt == attempt)
    found->second.replica.reset();
}

void book::verdict(request_id id, const result<replica_id>& outcome, time_point now) {
  auto& of = at(id);
  TROUPE_PROMISE(!of.answered && !of.ended, "request {} is answered twice", value(id));
  of.answered = true;
  if (outcome)
    return;
  log_.note(now, "request {} is refused: {}", value(id), to_string(outcome.error().code));
  check_excuse(of, outcome.error().code, now);
  ++tally_.refused;
  end(of, finish_reason::error, outcome.error().code);
}

void book::delivered(const engine::token_chunk& chunk, time_point now) {
  auto& of = at(chunk.request);
  TROUPE_PROMISE(!of.ended, "request {} hears of more after its end", value(chunk.request));
  TROUPE_PROMISE(of.answered, "request {} gets tokens before its verdict", value(chunk.request));
  TROUPE_PROMISE(chunk.stream == of.asked.sink.stream);
  TROUPE_PROMISE(chunk.attempt >= of.attempt, "request {}: a chunk of attempt {}, {} is current",
                 value(chunk.request), chunk.attempt, of.attempt);
  TROUPE_PROMISE(chunk.offset == of.seen.size(), "request {}: offset {} after {} tokens",
                 value(chunk.request), chunk.offset, of.seen.size());
  TROUPE_PROMISE(chunk.cached_tokens <= of.asked.prompt.size() &&
                     (chunk.cached_tokens == 0 || chunk.offset == 0),
                 "request {}: {} prompt tokens of {} were cached", value(chunk.request),
                 chunk.cached_tokens, of.asked.prompt.size());
  tally_.cached_tokens += chunk.cached_tokens;
  of.accepted = true;
  check_tokens(of, chunk);
  if (chunk.finish == finish_reason::none)
    return;
  log_.note(now, "request {} ends: {} {} after {} tokens", value(chunk.request),
            engine::to_string(chunk.finish), to_string(chunk.why), of.seen.size());
  check_end(of, chunk, now);
  end(of, chunk.finish, chunk.why);
}

/// Every token is the one that the model of the replica's numerics gives after those before it.
void book::check_tokens(record& of, const engine::token_chunk& chunk) {
  const engine::test::toy_model model{options_.vocab, of.numerics};
  for (const auto token : chunk.ids) {
    TROUPE_PROMISE(engine::test::end_of(of.asked.prompt.size(), of.seen, of.asked.sampling,
                                        options_.max_model_len) == finish_reason::none,
                   "request {} goes on behind the end of its answer", value(chunk.request));
    const auto position = static_cast<std::uint32_t>(of.asked.prompt.size() + of.seen.size());
    const auto expected = model.next(of.history, of.asked.sampling, position);
    TROUPE_PROMISE(token == expected, "request {}: token {} is {}, the model's is {}",
                   value(chunk.request), of.seen.size(), token, expected);
    of.history = engine::test::extend_history(of.history, token);
    of.seen.push_back(token);
    ++tally_.tokens;
  }
  if (!chunk.ids.empty()) {
    of.half_deaths = 0;
    of.lost_at.reset();
  }
}

void book::check_end(const record& of, const engine::token_chunk& chunk, time_point now) {
  const auto natural = engine::test::end_of(of.asked.prompt.size(), of.seen, of.asked.sampling,
                                            options_.max_model_len);
  switch (chunk.finish) {
  case finish_reason::stop:
  case finish_reason::length:
    TROUPE_PROMISE(chunk.finish == natural, "request {} ends by {} after {} tokens",
                   value(chunk.request), engine::to_string(chunk.finish), of.seen.size());
    TROUPE_PROMISE(chunk.finish == finish_reason::length || chunk.stop_token == of.seen.back());
    ++tally_.whole;
    return;
  case finish_reason::abort:
    TROUPE_PROMISE(of.cancelled || cut_.contains(hub_of(chunk.request)),
                   "request {} is aborted, and nobody wished it", value(chunk.request));
    ++tally_.aborted;
    return;
  default:
    check_excuse(of, chunk.why, now);
    ++tally_.errors;
  }
}

/// An error is what the client is told; it is right only when something happened that excuses it.
void book::check_excuse(const record& of, errc why, time_point now) const {
  const auto id = value(of.asked.id);
  const bool waited = of.lost_at && now - *of.lost_at >= options_.resume_limit;
  const bool cut = cut_.contains(hub_of(of.asked.id));
  const auto woke = woke_.find(hub_of(of.asked.id));
  bool excused = false;
  switch (why) {
  case errc::timed_out:
    excused = of.deadline && *of.deadline <= now;
    // Nothing ends while its front stands still.
    TROUPE_PROMISE(!excused || now <= *of.deadline + deadline_slack ||
                       (woke != woke_.end() && now <= woke->second + deadline_slack),
                   "request {} outlives its time-out", id);
    break;
  case errc::limit_exceeded:
    excused = of.half_deaths >= 2 * options_.deaths_max;
    break;
  case errc::internal:
    excused = of.row_failed || of.step_failed;
    break;
  case errc::peer_down:
    excused = waited || of.attempt == 0; // it waited at the door
    break;
  case errc::busy:
  case errc::draining:
    excused = waited || cut || of.seen.empty();
    break;
  case errc::cancelled:
    excused = of.cancelled;
    break;
  default:
    break;
  }
  TROUPE_PROMISE(excused && !of.probe, "request {} ends with {}, and nothing excuses it", id,
                 to_string(why));
}

void book::end(record& of, finish_reason finish, errc why) {
  of.ended = true;
  of.finish = finish;
  of.why = why;
  --open_;
  tally_.poisoned += why == errc::limit_exceeded ? 1 : 0;
  tally_.timed_out += why == errc::timed_out ? 1 : 0;
}

void book::replica_lost(hub_id hub, replica_id replica, bool died, time_point now) {
  for (auto& [id, of] : records_) {
    if (of.ended || hub_of(id) != hub || of.replica != replica)
      continue;
    of.replica.reset();
    if (died)
      of.half_deaths += of.accepted ? 2 : 1;
    if (!of.lost_at)
      of.lost_at = now;
  }
}

void book::check_refused(hub_id hub) const {
  for (const auto& [id, of] : records_)
    TROUPE_PROMISE(of.ended || hub_of(id) != hub || of.half_deaths < 2 * options_.deaths_max,
                   "request {} has killed {}/2 replicas in a row and is served still", value(id),
                   of.half_deaths);
}

void book::cancelled(request_id id) { at(id).cancelled = true; }

void book::forgotten(request_id id) {
  auto& of = at(id);
  of.abandoned = true;
  ++tally_.abandoned;
  end(of, finish_reason::abort, errc::none);
}

void book::row_failed(request_id id) { at(id).row_failed = true; }
void book::step_failed(request_id id) { at(id).step_failed = true; }
void book::front_cuts(hub_id hub) { cut_[hub] = true; }

void book::front_wakes(hub_id hub, time_point now) { woke_[hub] = now; }

void book::front_gone(hub_id hub) {
  for (const auto id : open_of(hub)) {
    auto& of = at(id);
    of.abandoned = true;
    ++tally_.abandoned;
    end(of, finish_reason::abort, errc::none);
  }
}

bool book::is_open(request_id id) const {
  const auto found = records_.find(id);
  return found != records_.end() && !found->second.ended;
}

std::uint32_t book::attempt_of(request_id id) const {
  const auto found = records_.find(id);
  return found == records_.end() ? 0 : found->second.attempt;
}

bool book::is_poison(request_id id) const {
  const auto found = records_.find(id);
  return found != records_.end() && found->second.poison;
}

std::vector<request_id> book::open() const {
  std::vector<request_id> out;
  for (const auto& [id, of] : records_) {
    if (!of.ended)
      out.push_back(id);
  }
  return out;
}

std::vector<request_id> book::open_of(hub_id hub) const {
  auto out = open();
  std::erase_if(out, [&](request_id id) { return hub_of(id) != hub; });
  return out;
}

} // namespace troupe::sim
