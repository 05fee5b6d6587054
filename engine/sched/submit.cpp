#include "engine/sched/scheduler_impl.hpp"
#include "troupe/base/check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace troupe::engine {

namespace {

/// Time-outs beyond this are none; it keeps sums of time points from overflowing.
constexpr auto longest_timeout = std::chrono::hours{24 * 365};

bool is_token(token_id token, std::uint32_t vocab_size) {
  return token >= 0 && (vocab_size == 0 || static_cast<std::uint32_t>(token) < vocab_size);
}

result<void> check_tokens(std::span<const token_id> tokens, std::uint32_t vocab_size) {
  const auto bad =
      std::ranges::find_if_not(tokens, [&](token_id t) { return is_token(t, vocab_size); });
  if (bad == tokens.end())
    return {};
  return fail(errc::invalid_argument,
              fmt::format("token id {} at position {} is outside the vocabulary of {}; use the "
                          "model's own tokenizer",
                          *bad, bad - tokens.begin(), vocab_size));
}

} // namespace

result<void> scheduler::impl::check(const submission& request) const {
  const auto prompt = request.prompt.size();
  if (prompt == 0)
    return fail(errc::invalid_argument, "the prompt has no token; give at least one");
  if (prompt >= config.max_model_len)
    return fail(
        errc::invalid_argument,
        fmt::format("the prompt has {} tokens, but prompt and answer together have room for "
                    "{} (max_model_len); shorten the prompt to at most {} tokens",
                    prompt, config.max_model_len, config.max_model_len - 1));
  if (request.sampling.max_tokens == 0)
    return fail(errc::invalid_argument, "max_tokens is 0; ask for at least one token");
  if (request.timeout.count() < 0)
    return fail(errc::invalid_argument,
                fmt::format("the time-out is {} ms; give 0 for none or a positive one",
                            request.timeout.count()));
  for (const auto& tokens : {std::span{request.prompt}, std::span{request.delivered}}) {
    if (auto ok = check_tokens(tokens, config.vocab_size); !ok)
      return ok;
  }
  const auto known = prompt + request.delivered.size();
  const auto longest = std::min<std::uint64_t>(
      config.max_model_len, std::max<std::uint64_t>(known, prompt + request.sampling.max_tokens));
  // The last token of an answer is never computed, so its slot is not needed.
  const auto needed = blocks_for(static_cast<std::uint32_t>(longest - 1));
  if (needed > config.num_blocks)
    return fail(
        errc::pool_exhausted,
        fmt::format("prompt and answer may reach {} tokens and need {} KV blocks of {}, but "
                    "there are {}; at most {} tokens fit: lower max_tokens, shorten the "
                    "prompt or give the KV cache more memory",
                    longest, needed, config.block_size, config.num_blocks,
                    std::uint64_t{config.num_blocks} * config.block_size + 1));
  if (sequences.contains(request.id))
    return fail(errc::conflict, fmt::format("request {} is being served; cancel it before it is "
                                            "submitted again",
                                            value(request.id)));
  if (waiting.size() >= config.max_waiting)
    return fail(errc::busy, fmt::format("{} requests are waiting, which is the limit; try again "
                                        "later",
                                        waiting.size()));
  return {};
}

/// Where a sequence stands in the queue. Who is saved keeps the order in which places were given
/// up.
scheduler::impl::turn scheduler::impl::turn_of(const sequence& seq) const {
  if (config.policy == scheduling_policy::priority)
    return {seq.request.priority, seq.arrival};
  return {0, seq.saved.places.empty() ? seq.arrival : seq.saved.order};
}

void scheduler::impl::enter(submission request, time_point now) {
  auto owned = std::make_unique<sequence>();
  auto& seq = *owned;
  seq.arrival = request.delivered.empty() ? ++last_arrival : ++last_resumption;
  seq.ticket = ++last_ticket;
  seq.prompt_tokens = static_cast<std::uint32_t>(request.prompt.size());
  seq.tokens = std::exchange(request.prompt, {});
  seq.tokens.insert(seq.tokens.end(), request.delivered.begin(), request.delivered.end());
  request.delivered = {};
  seq.arrived = now;
  seq.request = std::move(request);
  const auto timeout = seq.request.timeout;
  if (timeout.count() > 0 && timeout < longest_timeout) {
    seq.deadline = now + timeout;
    deadlines.emplace(*seq.deadline, seq.arrival);
    by_arrival.emplace(seq.arrival, seq.request.id);
  }
  waiting.emplace(turn_of(seq), &seq);
  sequences.emplace(seq.request.id, std::move(owned));
  if (auto how = check_stop(seq); how.reason != finish_reason::none) {
    finish(seq, how, now); // a resumed answer that was complete but for its end
    return;
  }
  ask(seq);
}

void scheduler::impl::extend_hashes(sequence& seq) const {
  if (!config.enable_prefix_caching)
    return;
  const auto size = config.block_size;
  while ((seq.hashes.size() + 1) * size <= seq.tokens.size()) {
    const auto parent = seq.hashes.empty() ? block_hash{} : seq.hashes.back();
    const auto block = std::span{seq.tokens}.subspan(seq.hashes.size() * size, size);
    seq.hashes.push_back(hasher(parent, block, seq.request.cache_salt));
  }
}

void scheduler::impl::ask(sequence& seq) {
  extend_hashes(seq);
  // The last token is always computed, so that there is something to sample from.
  const auto reusable =
      std::min<std::size_t>(seq.hashes.size(), (seq.tokens.size() - 1) / config.block_size);
  const auto wanted = open_want ? 0 : refill();
  kv_admit question{.request = seq.request.id, .hashes = {}, .tokens = {}, .blocks_wanted = wanted};
  question.hashes.assign(seq.hashes.begin(), seq.hashes.begin() + reusable);
  question.tokens.assign(seq.tokens.begin(), seq.tokens.begin() + reusable * config.block_size);
  admits.push_back(std::move(question));
  open_admits[seq.request.id].push_back(
      {.ticket = seq.ticket, .wanted = wanted, .epoch = ledger.epoch()});
  admits_wanted += wanted;
  seq.admitted = admission::asked;
  seq.asked_at = ledger.tick();
}

void scheduler::impl::admitted(const kv_admitted& answer) {
  const auto open = open_admits.find(answer.request);
  TROUPE_CHECK(open != open_admits.end(), "request {} was not asked for", value(answer.request));
  const auto asked = open->second.front();
  open->second.pop_front();
  if (open->second.empty())
    open_admits.erase(open);
  admits_wanted -= asked.wanted;
  ledger.grant(answer.granted);
  if (answer.exhausted)
    exhausted_epoch = asked.epoch;
  for (const auto block : answer.cached)
    ledger.pin(block);
  auto* seq = find(answer.request, asked.ticket);
  if (seq == nullptr) {
    for (auto i = answer.cached.size(); i > 0; --i)
      (void)ledger.drop(answer.cached[i - 1], step_id{});
  } else {
    TROUPE_CHECK(seq->admitted == admission::asked && seq->blocks.empty(),
                 "request {} is admitted twice", value(answer.request));
    seq->blocks = answer.cached;
    seq->admitted = admission::answered;
  }
  settle_account();
}

void scheduler::impl::granted(const kv_grant& answer) {
  TROUPE_CHECK(open_want.has_value(), "{} blocks came unasked", answer.granted.size());
  if (answer.exhausted)
    exhausted_epoch = open_want->epoch;
  open_want.reset();
  ledger.grant(answer.granted);
  settle_account();
}

void scheduler::impl::refresh_head() {
  if (waiting.empty() || running.size() >= config.max_num_seqs)
    return;
  auto& head = *waiting.begin()->second;
  if (pressed && !head.saved.due)
    return;
  if (head.rows_in_flight > 0)
    return;
  if (head.admitted == admission::none) {
    ask(head);
    return;
  }
  const auto covered = head.blocks.size();
  const auto reusable = (head.tokens.size() - 1) / config.block_size;
  if (head.admitted != admission::answered || covered >= std::min(reusable, head.hashes.size()))
    return;
  const auto found = covered + shareable(head).size();
  if (found >= std::min(reusable, head.hashes.size()) ||
      !ledger.left_behind(head.hashes[found], head.asked_at))
    return;
  drop_blocks(head);
  ask(head);
}

} // namespace troupe::engine
