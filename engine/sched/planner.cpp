#include "engine/sched/scheduler_impl.hpp"
#include "troupe/base/check.hpp"

#include <algorithm>
#include <utility>

namespace troupe::engine {

std::optional<step_batch> scheduler::impl::plan(time_point now) {
  if (in_flight.size() >= config.steps_ahead)
    return std::nullopt;
  step_plan plan{.budget = config.max_num_batched_tokens,
                 .prompt_budget = prompt_budget(),
                 .account = ledger.account(),
                 .room = {},
                 .preempted = false,
                 .rows = {}};
  pressed = false;
  one_ends = std::ranges::any_of(running, [&](const sequence* seq) {
    return seq->samples_in_flight > 0 && whole_in_flight(*seq);
  });
  take_turns(plan);
  running_pass(plan);
  if (!plan.preempted)
    waiting_pass(plan, now);
  settle_account();
  if (plan.rows.empty() && saves.empty())
    return std::nullopt;
  return emit(plan);
}

/// Gives every running sequence its tokens, in order. One that lacks blocks waits for the refill;
/// when the pool has none, room is made.
void scheduler::impl::running_pass(step_plan& plan) {
  const auto order = running;
  for (auto* seq : order) {
    if (plan.budget == 0)
      break;
    if (!seq->running) // preempted to make room for one before it
      continue;
    auto wanted = std::min(tokens_wanted(*seq), plan.budget);
    if (wanted > 1)
      wanted = std::min(wanted, plan.prompt_budget);
    if (wanted == 0)
      continue;
    const auto have = static_cast<std::uint32_t>(seq->blocks.size());
    const auto fitting = covered(have, seq->scheduled, wanted);
    if (fitting > 0) {
      schedule(plan, *seq, fitting);
      continue;
    }
    pressed = true;
    if (stuck() && !make_room(plan, *seq))
      break;
  }
  for (const auto& row : plan.rows)
    publish(*row.who);
}

/// Whether all of the answer is known or in flight.
bool scheduler::impl::whole_in_flight(const sequence& seq) const {
  return seq.generated() + seq.samples_in_flight >= seq.request.sampling.max_tokens ||
         seq.expected() >= config.max_model_len;
}

/// Tokens that the sequence lacks, within the limit on long prompts.
std::uint32_t scheduler::impl::tokens_wanted(const sequence& seq) const {
  // A row more would be computed for nothing.
  if (whole_in_flight(seq))
    return 0;
  const auto lacking = seq.expected() - seq.computed();
  const auto threshold = config.long_prefill_token_threshold;
  return config.enable_chunked_prefill && threshold > 0 ? std::min(lacking, threshold) : lacking;
}

/// Frees blocks for `asking`: first the pins of waiting sequences, then running ones from the last.
/// The blocks come home with a later message, so `asking` gets them in a later step.
/// @return false when `asking` itself was preempted
bool scheduler::impl::make_room(step_plan& plan, const sequence& asking) {
  const auto lacking =
      blocks_for(asking.scheduled + 1) - static_cast<std::uint32_t>(asking.blocks.size());
  if (give_up_pins(lacking, nullptr) >= lacking)
    return true;
  while (stuck() && running.size() > 1) {
    auto* victim = pick_victim();
    set_aside(plan, *victim);
    if (victim == &asking)
      return false;
  }
  return true;
}

/// Takes a running sequence out to make room: its blocks come home with a later message.
void scheduler::impl::set_aside(step_plan& plan, sequence& victim) {
  unschedule(plan, victim);
  save(victim);
  preempt(victim);
  plan.preempted = true;
}

/// Whoever has had its turn where preempted sequences are saved, else the last of the running ones,
/// or under the priority policy the worst.
sequence* scheduler::impl::pick_victim() const {
  if (auto* longest = longest_running())
    return longest;
  if (config.policy == scheduling_policy::fcfs)
    return running.back();
  return *std::ranges::max_element(running, {}, [](const sequence* seq) {
    return turn{seq->request.priority, seq->arrival};
  });
}

/// Takes the victim's row out of the plan; the blocks that it just got return to the account.
void scheduler::impl::unschedule(step_plan& plan, sequence& seq) {
  const auto row = std::ranges::find(plan.rows, &seq, &planned_row::who);
  if (row == plan.rows.end())
    return;
  plan.budget += row->tokens;
  plan.prompt_budget += row->tokens > 1 ? row->tokens : 0;
  seq.scheduled -= row->tokens;
  seq.samples_in_flight -= row->samples ? 1 : 0;
  --seq.rows_in_flight;
  while (seq.blocks.size() > row->first_new_block) {
    ledger.untake(seq.blocks.back());
    seq.blocks.pop_back();
  }
  plan.rows.erase(row);
}

/// Back to the queue: what is neither saved nor in the prefix cache then is computed anew later.
void scheduler::impl::preempt(sequence& victim) {
  drop_blocks(victim);
  victim.scheduled = 0;
  victim.done = 0;
  victim.settled_blocks = 0;
  victim.shared_blocks = 0;
  victim.admitted = admission::none;
  victim.running = false;
  if (victim.known)
    removed.push_back(victim.request.id);
  victim.known = false;
  std::erase(running, &victim);
  waiting.emplace(turn_of(victim), &victim);
  ++counters.preemptions;
}

void scheduler::impl::waiting_pass(step_plan& plan, time_point now) {
  while (std::min(plan.budget, plan.prompt_budget) > 0 && running.size() < config.max_num_seqs &&
         !waiting.empty()) {
    if (!admit_head(plan, now))
      break;
  }
}

/// Gives the head of the queue its first tokens.
/// @return false when it has to wait, and with it all behind it
bool scheduler::impl::admit_head(step_plan& plan, time_point now) {
  refresh_head();
  auto& head = *waiting.begin()->second;
  if (head.rows_in_flight > 0 || head.admitted != admission::answered)
    return false;
  const auto shared = shareable(head);
  const auto prefix = static_cast<std::uint32_t>(head.blocks.size() + shared.size());
  head.scheduled = std::max(prefix * config.block_size, head.saved.positions);
  const auto wanted = tokens_wanted(head);
  const bool whole = !config.enable_chunked_prefill;
  auto fitting =
      covered(prefix, head.scheduled, std::min({wanted, plan.budget, plan.prompt_budget}));
  const bool roomy = is_roomy(plan, head, prefix);
  if ((whole && fitting < wanted) || !roomy)
    fitting = 0;
  if (fitting == 0) {
    const auto lacking = blocks_for(head.scheduled + (whole ? wanted : 1)) - prefix;
    head.scheduled = 0;
    const bool short_of_blocks = !whole || wanted <= plan.budget;
    if (short_of_blocks && stuck())
      (void)give_up_pins(lacking, &head);
    return false;
  }
  for (const auto block : shared)
    ledger.share(block);
  head.blocks.insert(head.blocks.end(), shared.begin(), shared.end());
  head.settled_blocks = head.shared_blocks = prefix;
  waiting.erase(waiting.begin());
  running.push_back(&head);
  head.running = true;
  head.entered = step_id{value(last_step) + 1};
  if (!head.first_scheduled) {
    head.first_scheduled = now;
    head.cached_tokens = std::min(head.scheduled, head.prompt_tokens);
    counters.prompt_tokens += head.prompt_tokens;
    counters.prompt_tokens_cached += head.cached_tokens;
  }
  counters.prefix_cache_queries += config.enable_prefix_caching ? head.size() : 0;
  counters.prefix_cache_hits += std::uint64_t{prefix} * config.block_size;
  schedule(plan, head, fitting);
  bring_back(head, prefix);
  if (plan.room)
    *plan.room += room_of(head);
  publish(head);
  return true;
}

/// Whether the head of the queue may come in beside what runs. Whoever runs already keeps its need
/// while others come in, so all are counted once a step.
bool scheduler::impl::is_roomy(step_plan& plan, const sequence& head, std::uint32_t prefix) const {
  if (plan.account >= account_limit() || head.saved.due)
    return true;
  if (!plan.room)
    plan.room = room_of_running();
  return ledger.account() >= entrance(head, prefix, *plan.room);
}

/// Live blocks that continue the pinned prefix, those of this very step included.
std::vector<block_id> scheduler::impl::shareable(const sequence& seq) const {
  std::vector<block_id> found;
  const auto size = config.block_size;
  const auto reusable = std::min<std::size_t>(seq.hashes.size(), (seq.tokens.size() - 1) / size);
  for (auto i = seq.blocks.size(); i < reusable; ++i) {
    const auto parent = i == 0 ? block_hash{} : seq.hashes[i - 1];
    const auto* block =
        ledger.find(seq.hashes[i], parent, std::span{seq.tokens}.subspan(i * size, size));
    if (block == nullptr)
      break;
    found.push_back(*block);
  }
  return found;
}

/// Adds a row of `tokens` positions; the account covers it.
void scheduler::impl::schedule(step_plan& plan, sequence& seq, std::uint32_t tokens) {
  const auto end = seq.scheduled + tokens;
  const bool samples = end == seq.expected();
  plan.rows.push_back({.who = &seq,
                       .position = seq.scheduled,
                       .tokens = tokens,
                       .samples = samples,
                       .first_new_block = static_cast<std::uint32_t>(seq.blocks.size())});
  while (seq.blocks.size() < blocks_for(end))
    seq.blocks.push_back(ledger.take());
  plan.budget -= tokens;
  if (seq.expected() - seq.scheduled > 1)
    plan.prompt_budget -= std::min(plan.prompt_budget, tokens);
  seq.scheduled = end;
  seq.samples_in_flight += samples ? 1 : 0;
  ++seq.rows_in_flight;
}

/// Lets others share the full blocks of known tokens that steps up to this one fill.
void scheduler::impl::publish(sequence& seq) {
  const auto size = config.block_size;
  const auto full = std::min<std::size_t>(seq.scheduled / size, seq.hashes.size());
  for (auto& i = seq.shared_blocks; i < full; ++i) {
    const auto tokens = std::span{seq.tokens}.subspan(std::size_t{i} * size, size);
    ledger.publish(seq.blocks[i], seq.ticket,
                   {.block = seq.blocks[i],
                    .hash = seq.hashes[i],
                    .parent = i == 0 ? block_hash{} : seq.hashes[i - 1],
                    .tokens = {tokens.begin(), tokens.end()}});
  }
}

/// Counts the positions of the row that an earlier one computed already.
void scheduler::impl::count_anew(sequence& seq, const planned_row& row) {
  const auto end = row.position + row.tokens;
  counters.tokens_recomputed +=
      std::min(end, seq.once_scheduled) - std::min(row.position, seq.once_scheduled);
  seq.once_scheduled = std::max(seq.once_scheduled, end);
}

step_batch scheduler::impl::emit(step_plan& plan) {
  last_step = step_id{value(last_step) + 1};
  step_batch batch{.id = last_step,
                   .removed = std::exchange(removed, {}),
                   .added = {},
                   .saved = std::exchange(saves, {}),
                   .restored = std::exchange(restores, {}),
                   .rows = {}};
  flying_step flying{.id = last_step, .rows = {}};
  for (const auto& row : plan.rows) {
    auto& seq = *row.who;
    step_row out{.id = seq.request.id,
                 .position = row.position,
                 .tokens = row.tokens,
                 .samples = row.samples,
                 .new_blocks = {}};
    if (seq.known) {
      out.new_blocks.assign(seq.blocks.begin() + row.first_new_block, seq.blocks.end());
    } else {
      batch.added.push_back({.id = seq.request.id,
                             .tokens = seq.tokens,
                             .prompt_tokens = seq.prompt_tokens,
                             .blocks = seq.blocks,
                             .sampling = seq.request.sampling});
      seq.known = true;
    }
    seq.last_step = last_step;
    count_anew(seq, row);
    flying.rows.push_back({.id = seq.request.id,
                           .ticket = seq.ticket,
                           .end = row.position + row.tokens,
                           .samples = row.samples});
    batch.rows.push_back(std::move(out));
  }
  in_flight.push_back(std::move(flying));
  ++counters.steps;
  return batch;
}

} // namespace troupe::engine
