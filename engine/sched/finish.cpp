#include "engine/sched/scheduler_impl.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace troupe::engine {

namespace {

bool contains(const std::vector<token_id>& tokens, token_id token) {
  return std::ranges::find(tokens, token) != tokens.end();
}

duration since(const std::optional<time_point>& from, const std::optional<time_point>& to) {
  return from && to ? *to - *from : duration{};
}

} // namespace

/// Whether the last known token of the answer ends it, in vLLM's order of reasons.
ending scheduler::impl::check_stop(const sequence& seq) const {
  if (seq.generated() == 0)
    return {};
  const auto& sampling = seq.request.sampling;
  const auto last = seq.tokens.back();
  const bool eos = !sampling.ignore_eos && contains(sampling.eos_token_ids, last);
  if (eos || contains(sampling.stop_token_ids, last))
    return {.reason = finish_reason::stop, .stop_token = last, .why = {}, .note = {}};
  if (seq.size() >= config.max_model_len || seq.generated() >= sampling.max_tokens)
    return {.reason = finish_reason::length, .stop_token = -1, .why = {}, .note = {}};
  return {};
}

/// Hands over `fresh`, the last known tokens of the sequence, and how the answer ends if it does.
/// `likely` is of the one fresh token, where its request asks.
void scheduler::impl::deliver(sequence& seq, std::span<const token_id> fresh, const ending& how,
                              const token_logprobs* likely) {
  token_chunk chunk{.request = seq.request.id,
                    .stream = seq.request.sink.stream,
                    .attempt = seq.request.attempt,
                    .offset = seq.generated() - static_cast<std::uint32_t>(fresh.size()),
                    .ids = {fresh.begin(), fresh.end()},
                    .logprobs = {},
                    .finish = how.reason,
                    .stop_token = how.stop_token,
                    .cached_tokens = seq.first_chunk_sent ? 0 : seq.cached_tokens,
                    .why = how.why,
                    .note = how.note};
  if (likely != nullptr)
    chunk.logprobs.push_back(*likely);
  seq.first_chunk_sent = true;
  const auto hub = seq.request.sink.hub;
  auto batch = std::ranges::find(chunks, hub, [](const auto& entry) { return entry.first; });
  if (batch == chunks.end())
    batch = chunks.insert(chunks.end(), {hub, {}});
  batch->second.push_back(std::move(chunk));
}

/// Ends a request with a chunk of its own.
void scheduler::impl::finish(sequence& seq, const ending& how, time_point now) {
  deliver(seq, {}, how);
  forget(seq, how.reason, now);
}

/// Takes an ended sequence out: blocks go home, the executor is told with the next step.
void scheduler::impl::forget(sequence& seq, finish_reason reason, time_point now) {
  finished.push_back({.id = seq.request.id,
                      .finish = reason,
                      .prompt_tokens = seq.prompt_tokens,
                      .generated_tokens = seq.generated(),
                      .cached_tokens = seq.cached_tokens,
                      .queued = since(seq.arrived, seq.first_scheduled.value_or(now)),
                      .prefill = since(seq.first_scheduled, seq.first_token.value_or(now)),
                      .decode = since(seq.first_token, now)});
  drop_blocks(seq);
  drop_saved(seq);
  if (seq.known)
    removed.push_back(seq.request.id);
  if (seq.running)
    std::erase(running, &seq);
  else
    std::erase_if(waiting, [&](const auto& entry) { return entry.second == &seq; });
  if (seq.deadline) {
    deadlines.erase({*seq.deadline, seq.arrival});
    by_arrival.erase(seq.arrival);
  }
  const auto id = seq.request.id;
  sequences.erase(id);
}

void scheduler::impl::expire(time_point now) {
  while (!deadlines.empty() && deadlines.begin()->first <= now) {
    auto& seq = *sequences.at(by_arrival.at(deadlines.begin()->second));
    finish(seq,
           failure(errc::timed_out,
                   fmt::format("the request's time-out of {} ms passed after {} tokens",
                               seq.request.timeout.count(), seq.generated())),
           now);
  }
}

} // namespace troupe::engine
