#include "engine/sched/scheduler_impl.hpp"
#include "troupe/base/check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace troupe::engine {

sequence* scheduler::impl::find(request_id id, std::uint64_t ticket) const {
  const auto found = sequences.find(id);
  return found != sequences.end() && found->second->ticket == ticket ? found->second.get()
                                                                     : nullptr;
}

void scheduler::impl::step_done(const step_result& done, time_point now) {
  if (in_flight.empty() || done.id < in_flight.front().id)
    return; // a step that a failed one took with it
  TROUPE_CHECK(done.id == in_flight.front().id, "step {} came back before step {}", value(done.id),
               value(in_flight.front().id));
  const auto step = std::move(in_flight.front());
  in_flight.pop_front();
  ended_step = step.id;
  commits.push_back({.step = step.id, .blocks = {}});
  for (const auto& failed : done.failed)
    row_failed(failed, step, now);
  std::unordered_map<request_id, row_yield> yields;
  for (const auto& token : done.tokens)
    yields[token.id].sampled = &token;
  for (const auto& row : done.logprobs)
    yields[row.id].likely = &row.of;
  for (const auto& row : step.rows) {
    auto* seq = find(row.id, row.ticket);
    if (seq == nullptr)
      continue;
    const auto got = yields.find(row.id);
    row_done(*seq, row, got == yields.end() ? row_yield{} : got->second, now);
  }
  ledger.step_ended(step.id);
  settle_account();
  refresh_head();
}

/// One row came back good: what it filled is committed, what it sampled goes to the client.
void scheduler::impl::row_done(sequence& seq, const flying_row& row, const row_yield& got,
                               time_point now) {
  --seq.rows_in_flight;
  if (seq.running) {
    seq.done = row.end;
    commit_blocks(seq);
  }
  if (!row.samples)
    return;
  --seq.samples_in_flight;
  if (got.sampled == nullptr) {
    disown(seq.ticket);
    finish(seq,
           failure(errc::internal,
                   fmt::format("step {} brought no token for the request", value(ended_step))),
           now);
    return;
  }
  seq.tokens.push_back(got.sampled->token);
  ++counters.generation_tokens;
  if (!seq.first_token)
    seq.first_token = now;
  const auto how = check_stop(seq);
  deliver(seq, std::span{seq.tokens}.last(1), how, got.likely);
  if (how.reason != finish_reason::none) {
    forget(seq, how.reason, now);
    return;
  }
  extend_hashes(seq);
  if (seq.running)
    publish(seq);
}

/// Enters the full blocks behind the confirmed positions into the prefix index.
void scheduler::impl::commit_blocks(sequence& seq) {
  const auto size = config.block_size;
  const auto full = seq.done / size;
  for (auto& i = seq.settled_blocks; i < full; ++i) {
    ledger.mark_filled(seq.blocks[i]);
    if (!config.enable_prefix_caching)
      continue;
    const auto tokens = std::span{seq.tokens}.subspan(std::size_t{i} * size, size);
    commits.back().blocks.push_back({.block = seq.blocks[i],
                                     .hash = seq.hashes[i],
                                     .parent = i == 0 ? block_hash{} : seq.hashes[i - 1],
                                     .tokens = {tokens.begin(), tokens.end()}});
  }
}

/// A row failed alone: its request ends, and whoever shares what it should have filled starts anew.
void scheduler::impl::row_failed(const failed_row& failed, const flying_step& step,
                                 time_point now) {
  const auto row = std::ranges::find(step.rows, failed.id, &flying_row::id);
  if (row == step.rows.end())
    return;
  disown(row->ticket);
  auto* seq = find(row->id, row->ticket);
  if (seq == nullptr)
    return;
  finish(*seq, failure(failed.code, fmt::format("step {}: {}", value(step.id), failed.note)), now);
}

/// Sequences that share blocks which the rows under `ticket` no longer fill are put back to the
/// queue, and those that share theirs; so are those that were saved with such blocks. What they
/// have in flight does not count.
void scheduler::impl::disown(std::uint64_t ticket) {
  std::vector<std::uint64_t> bad{ticket};
  while (!bad.empty()) {
    const auto broken = bad.back();
    bad.pop_back();
    const auto order = running;
    for (auto* seq : order) {
      const bool tainted = seq->ticket != broken && std::ranges::any_of(seq->blocks, [&](auto id) {
                             return ledger.filler(id) == broken;
                           });
      if (!tainted)
        continue;
      bad.push_back(std::exchange(seq->ticket, ++last_ticket));
      seq->rows_in_flight = 0;
      seq->samples_in_flight = 0;
      preempt(*seq);
    }
    for (const auto& [when, seq] : waiting) {
      if (!rests_on(seq->saved, broken))
        continue;
      bad.push_back(std::exchange(seq->ticket, ++last_ticket));
      start_anew(*seq);
    }
  }
}

/// Of a waiting sequence: nothing that was computed, saved or found for it counts.
void scheduler::impl::start_anew(sequence& seq) {
  seq.rows_in_flight = 0;
  seq.samples_in_flight = 0;
  drop_saved(seq);
  drop_blocks(seq);
  seq.admitted = admission::none;
}

/// Sequences stay in `removed`: the executor forgot everybody, but steps that were on their way to
/// it may have taught it some anew.
void scheduler::impl::step_failed(const error& why, time_point now) {
  for (const auto& step : in_flight) {
    commits.push_back({.step = step.id, .blocks = {}});
    ended_step = step.id;
    ledger.step_ended(step.id);
  }
  in_flight.clear();
  commits.push_back({.step = ended_step, .blocks = {}, .contents_lost = true});
  // A worker that is gone comes back: worth another try. Any other failure is ours.
  const auto code = why.code == errc::peer_down ? errc::peer_down : errc::internal;
  const auto how = failure(code, fmt::format("the worker failed: {}", to_string(why)));
  while (!running.empty())
    finish(*running.front(), how, now);
  // What they were to find in blocks or in host memory is lost, and answers about it do not count.
  for (const auto& [when, seq] : waiting) {
    seq->ticket = ++last_ticket;
    start_anew(*seq);
  }
  ledger.forget_left_behind();
  settle_account();
}

} // namespace troupe::engine
