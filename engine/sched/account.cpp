#include "engine/sched/scheduler_impl.hpp"

#include <algorithm>

namespace troupe::engine {

namespace {

/// For how many tokens of each running sequence there is room when another is let in.
constexpr std::uint32_t room_to_go_on = 64;

} // namespace

std::uint32_t scheduler::impl::blocks_for(std::uint32_t tokens) const {
  return tokens / config.block_size + (tokens % config.block_size != 0 ? 1 : 0);
}

/// What the account has before another sequence is let in beside running ones: all that is known of
/// it, and room for these to go on for a while. Less would let in what soon has to leave again, and
/// then all is computed anew.
/// @param room room_of_running()
std::uint32_t scheduler::impl::entrance(const sequence& seq, std::uint32_t have,
                                        std::uint64_t room) const {
  if (running.empty())
    return 0;
  const auto known = blocks_for(seq.expected());
  if (seq.saved.due)
    return std::min(known > have ? known - have : 0, account_limit());
  const auto blocks = room + (known > have ? known - have : 0);
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(blocks, account_limit()));
}

/// The blocks that a running sequence lacks to go on for a while.
std::uint32_t scheduler::impl::room_of(const sequence& seq) const {
  const auto last = std::min<std::uint64_t>(
      config.max_model_len, std::uint64_t{seq.prompt_tokens} + seq.request.sampling.max_tokens);
  const auto end = std::min<std::uint64_t>(last - 1, seq.expected() + room_to_go_on);
  const auto needed = blocks_for(static_cast<std::uint32_t>(end));
  const auto held = static_cast<std::uint32_t>(seq.blocks.size());
  return needed > held ? needed - held : 0;
}

std::uint64_t scheduler::impl::room_of_running() const {
  std::uint64_t room = 0;
  for (const auto* seq : running)
    room += room_of(*seq);
  return room;
}

/// The most ids that the account may hold. What comes back from host memory comes in one step,
/// however much that is.
std::uint32_t scheduler::impl::account_limit() const {
  if (waiting.empty() || waiting.begin()->second->saved.places.empty())
    return account_cap;
  const auto& head = *waiting.begin()->second;
  const auto needed = blocks_for(head.saved.positions + 1);
  const auto have = static_cast<std::uint32_t>(head.blocks.size());
  return needed > have ? std::max(account_cap, needed - have) : account_cap;
}

/// The blocks that the next two steps take in the worst case, or that the next of the queue needs
/// to be let in, never more than the account may hold.
std::uint32_t scheduler::impl::demand() const {
  const auto limit = account_limit();
  std::uint64_t budget = std::uint64_t{config.max_num_batched_tokens} * 2;
  std::uint32_t blocks = 0;
  const auto add = [&](const sequence& seq, std::uint32_t position) {
    const auto last = std::min<std::uint64_t>(
        config.max_model_len, std::uint64_t{seq.prompt_tokens} + seq.request.sampling.max_tokens);
    const auto left = seq.expected() - position + 1;
    const auto take = static_cast<std::uint32_t>(std::min<std::uint64_t>(left, budget));
    const auto end = std::min<std::uint64_t>(std::uint64_t{position} + take, last - 1);
    budget -= take;
    const auto have = static_cast<std::uint32_t>(seq.blocks.size());
    const auto needed = blocks_for(static_cast<std::uint32_t>(end));
    blocks += needed > have ? needed - have : 0;
  };
  for (const auto* seq : running)
    add(*seq, seq->scheduled);
  auto places = config.max_num_seqs - static_cast<std::uint32_t>(running.size());
  std::uint32_t room = 0;
  if (places > 0 && !waiting.empty()) {
    const auto& head = *waiting.begin()->second;
    room = entrance(head, static_cast<std::uint32_t>(head.blocks.size()), room_of_running());
  }
  for (auto i = waiting.begin(); i != waiting.end() && places > 0; ++i, --places) {
    if (budget == 0 || blocks >= limit)
      break;
    const auto found = static_cast<std::uint32_t>(i->second->blocks.size()) * config.block_size;
    add(*i->second, std::max(found, i->second->saved.positions));
    room += blocks_for(room_to_go_on);
  }
  blocks = std::max(blocks, room);
  return std::min(blocks, limit);
}

std::uint32_t scheduler::impl::open_wants() const {
  return admits_wanted + (open_want ? open_want->wanted : 0);
}

/// How many ids to ask for now: none while there are enough for two steps.
std::uint32_t scheduler::impl::refill() const {
  const auto have = ledger.account() + open_wants();
  const auto needed = demand();
  if (have >= needed || exhausted_epoch == ledger.epoch())
    return 0;
  // Somewhat more than needed, so that decoding does not ask at every step.
  return std::min(account_limit(), needed + needed / 2 + 1) - have;
}

void scheduler::impl::top_up() {
  if (open_want)
    return;
  const auto wanted = refill();
  if (wanted == 0)
    return;
  want = kv_want{.blocks = wanted};
  open_want = open_admit{.ticket = 0, .wanted = wanted, .epoch = ledger.epoch()};
}

/// Asks for what is lacking and gives back what is more than twice the need.
void scheduler::impl::settle_account() {
  const auto needed = demand();
  const auto most = needed == 0 ? 0 : std::min(account_limit(), 2 * needed + 2);
  if (ledger.account() > most)
    ledger.give_back(ledger.account() - most);
  top_up();
}

/// How many of `tokens` positions from `position` on the present blocks and the account have room
/// for.
std::uint32_t scheduler::impl::covered(std::uint32_t blocks, std::uint32_t position,
                                       std::uint32_t tokens) const {
  const auto room = (std::uint64_t{blocks} + ledger.account()) * config.block_size;
  if (room <= position)
    return 0;
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(tokens, room - position));
}

bool scheduler::impl::stuck() const {
  return exhausted_epoch == ledger.epoch() && !ledger.releases_pending() && open_wants() == 0 &&
         !one_ends;
}

/// Lets waiting sequences give up their pins, the last in turn first.
/// @return how many blocks nobody holds any more
std::uint32_t scheduler::impl::give_up_pins(std::uint32_t wanted, const sequence* except) {
  std::uint32_t freed = 0;
  for (auto i = waiting.rbegin(); i != waiting.rend() && freed < wanted; ++i) {
    auto& seq = *i->second;
    if (&seq == except || seq.blocks.empty())
      continue;
    const auto before = ledger.held();
    drop_blocks(seq);
    seq.admitted = admission::none;
    freed += before - ledger.held();
  }
  return freed;
}

void scheduler::impl::drop_blocks(sequence& seq) {
  for (auto i = seq.blocks.size(); i > 0; --i)
    (void)ledger.drop(seq.blocks[i - 1], seq.last_step);
  seq.blocks.clear();
  seq.last_step = {};
}

} // namespace troupe::engine
