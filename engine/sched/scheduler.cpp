#include "engine/sched/scheduler.hpp"

#include "engine/sched/scheduler_impl.hpp"
#include "troupe/base/check.hpp"

#include <algorithm>
#include <utility>
#include <vector>

namespace troupe::engine {

scheduler::impl::impl(scheduler_config given)
    : config{given}, hasher{given.hash_key}, ledger{given.num_blocks, given.block_size},
      host{given.num_host_blocks} {
  TROUPE_CHECK(config.block_size > 0 && config.num_blocks > 0, "{} blocks of {}", config.num_blocks,
               config.block_size);
  TROUPE_CHECK(config.max_model_len > 1, "max_model_len is {}", config.max_model_len);
  TROUPE_CHECK(config.max_num_seqs > 0 && config.max_num_batched_tokens > 0,
               "{} sequences, {} tokens a step", config.max_num_seqs,
               config.max_num_batched_tokens);
  TROUPE_CHECK(config.steps_ahead > 0, "no step may be planned");
  TROUPE_CHECK(config.enable_chunked_prefill ||
                   config.max_num_batched_tokens >= config.max_model_len,
               "without chunked prefill a step must have room for a whole prompt: {} < {}",
               config.max_num_batched_tokens, config.max_model_len);
  // An eighth of the pool, but at least one step of one sequence.
  const auto one = blocks_for(std::min(config.max_num_batched_tokens, config.max_model_len)) + 1;
  account_cap = std::min(config.num_blocks, std::max(config.num_blocks / 8, one));
}

scheduler::scheduler(scheduler_config config) : impl_{std::make_unique<impl>(config)} {}

scheduler::~scheduler() = default;

result<void> scheduler::submit(submission request, time_point now) {
  if (auto ok = impl_->check(request); !ok)
    return ok;
  impl_->enter(std::move(request), now);
  return {};
}

void scheduler::cancel(request_id id, finish_reason reason, time_point now) {
  const auto found = impl_->sequences.find(id);
  if (found == impl_->sequences.end())
    return;
  impl_->finish(*found->second, {.reason = reason, .stop_token = -1, .why = {}, .note = {}}, now);
  impl_->settle_account();
  impl_->refresh_head();
}

void scheduler::cancel_hub(hub_id hub, time_point now) {
  std::vector<request_id> lost;
  for (const auto& [id, sequence] : impl_->sequences)
    if (sequence->request.sink.hub == hub)
      lost.push_back(id);
  std::sort(lost.begin(), lost.end());
  for (const auto id : lost)
    cancel(id, finish_reason::abort, now);
}

void scheduler::admitted(const kv_admitted& answer, time_point) { impl_->admitted(answer); }

void scheduler::granted(const kv_grant& answer) { impl_->granted(answer); }

std::optional<step_batch> scheduler::plan(time_point now) { return impl_->plan(now); }

void scheduler::step_done(const step_result& done, time_point now) { impl_->step_done(done, now); }

void scheduler::step_failed(const error& why, time_point now) { impl_->step_failed(why, now); }

void scheduler::step_failed(step_id step, const error& why, time_point now) {
  if (!impl_->in_flight.empty() && step >= impl_->in_flight.front().id)
    impl_->step_failed(why, now);
}

void scheduler::expire(time_point now) {
  impl_->expire(now);
  impl_->settle_account();
  impl_->refresh_head();
}

std::optional<time_point> scheduler::next_deadline() const {
  if (impl_->deadlines.empty())
    return std::nullopt;
  return impl_->deadlines.begin()->first;
}

scheduler_actions scheduler::take_actions() {
  scheduler_actions actions{.commits = std::exchange(impl_->commits, {}),
                            .releases = {},
                            .admits = std::exchange(impl_->admits, {}),
                            .want = std::exchange(impl_->want, std::nullopt),
                            .tokens = std::exchange(impl_->chunks, {})};
  if (auto released = impl_->ledger.take_releases(); !released.blocks.empty())
    actions.releases.push_back(std::move(released));
  return actions;
}

std::vector<request_timing> scheduler::take_finished() {
  return std::exchange(impl_->finished, {});
}

scheduler_stats scheduler::stats() const {
  auto stats = impl_->counters;
  stats.running = static_cast<std::uint32_t>(impl_->running.size());
  stats.waiting = static_cast<std::uint32_t>(impl_->waiting.size());
  for (const auto& [turn, one] : impl_->waiting) {
    stats.waiting_tokens += one->tokens.size();
    stats.swapped += one->saved.places.empty() ? 0 : 1;
  }
  stats.steps_in_flight = static_cast<std::uint32_t>(impl_->in_flight.size());
  stats.blocks_used = impl_->ledger.held();
  stats.blocks_total = impl_->config.num_blocks;
  stats.host_blocks_used = impl_->host.used();
  stats.host_blocks_total = impl_->host.total();
  return stats;
}

bool scheduler::idle() const { return impl_->sequences.empty() && impl_->in_flight.empty(); }

void scheduler::return_account() { impl_->ledger.give_back(impl_->ledger.account()); }

} // namespace troupe::engine
