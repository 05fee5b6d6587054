#include "engine/sched/scheduler_impl.hpp"
#include "troupe/base/check.hpp"

#include <algorithm>
#include <utility>

namespace troupe::engine {

/// Has the step that is being planned save all that is computed of the victim, rows in flight
/// included, if host memory has room for it. The blocks are needed until that step has run.
void scheduler::impl::save(sequence& victim) {
  const auto blocks = blocks_for(victim.scheduled);
  if (blocks == 0 || blocks > host.free())
    return;
  TROUPE_CHECK(victim.blocks.size() == blocks, "{} blocks hold {} positions", victim.blocks.size(),
               victim.scheduled);
  victim.last_step = step_id{value(last_step) + 1};
  auto& saved = victim.saved;
  saved = {.places = host.take(blocks),
           .positions = victim.scheduled,
           .step = victim.last_step,
           .order = ++last_saved,
           .fillers = {},
           .due = false};
  for (std::uint32_t i = 0; i < blocks; ++i) {
    saves.push_back({.block = victim.blocks[i], .host = saved.places[i]});
    const auto filler = ledger.filler(victim.blocks[i]);
    const bool others = filler != 0 && filler != victim.ticket;
    if (others && (saved.fillers.empty() || saved.fillers.back() != filler))
      saved.fillers.push_back(filler);
  }
  counters.blocks_saved += blocks;
}

/// Of the running sequences that have had their turn and that host memory has room for, the one
/// that runs longest; of equals the last. Null where there is none, or turns are not taken.
sequence* scheduler::impl::longest_running() const {
  sequence* longest = nullptr;
  if (config.policy != scheduling_policy::fcfs || config.turn_steps == 0 || host.total() == 0)
    return longest;
  for (auto* seq : running)
    if (value(last_step) >= value(seq->entered) + config.turn_steps &&
        blocks_for(seq->scheduled) <= host.free() &&
        (longest == nullptr || seq->entered <= longest->entered))
      longest = seq;
  return longest;
}

/// Makes room for a saved sequence that has waited for its turn, where nobody waits who never ran:
/// so all answers go on, and none is left for the end, when few run. Those that run go on taking
/// blocks meanwhile, so one victim may not be enough.
void scheduler::impl::take_turns(step_plan& plan) {
  if (!stuck() || waiting.empty() || waiting.rbegin()->second->saved.places.empty())
    return;
  auto& saved = waiting.begin()->second->saved;
  if (saved.places.empty() || value(last_step) < value(saved.step) + config.turn_steps)
    return;
  auto* victim = longest_running();
  if (victim == nullptr || running.size() < 2)
    return;
  saved.due = true;
  set_aside(plan, *victim);
}

/// Has the step that is being planned fill the blocks behind the first `found` ones from host
/// memory, as far as something of them lies there. The places are free for what later steps save.
void scheduler::impl::bring_back(sequence& seq, std::uint32_t found) {
  const auto& places = seq.saved.places;
  for (auto i = std::size_t{found}; i < places.size(); ++i) {
    restores.push_back({.block = seq.blocks[i], .host = places[i]});
    ++counters.blocks_restored;
  }
  drop_saved(seq);
}

void scheduler::impl::drop_saved(sequence& seq) {
  host.give_back(seq.saved.places);
  seq.saved = {};
}

/// Whether blocks were saved that rows under `ticket` should have filled, and did not: the step
/// that comes back was before that one.
bool scheduler::impl::rests_on(const saved_blocks& saved, std::uint64_t ticket) const {
  return ended_step < saved.step && std::ranges::find(saved.fillers, ticket) != saved.fillers.end();
}

} // namespace troupe::engine
