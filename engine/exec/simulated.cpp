#include "engine/exec/simulated.hpp"

#include "engine/kv/block_hash.hpp"
#include "troupe/base/check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

namespace troupe::engine {

struct simulated_executor::sequence {
  request_id id{};
  /// Known tokens and those sampled here.
  std::vector<token_id> tokens;
  std::vector<block_id> blocks;
  sampling_params sampling;
  /// The position of its next row; unset for a new sequence, whose first row says it.
  std::optional<std::uint32_t> next;
  /// Rows that are prepared and will sample.
  std::uint32_t samples_pending = 0;
  /// Leading blocks that are counted in holders_.
  std::size_t held = 0;
  bool broken = false;
};

struct simulated_executor::staged_row {
  sequence* who = nullptr;
  std::uint32_t position = 0;
  std::uint32_t tokens = 0;
  bool samples = false;
  /// Blocks to be wiped before the row runs.
  std::vector<block_id> fresh;
  std::uint64_t history = 0;
  token_id sampled = -1;
  std::string failure;
};

struct simulated_executor::staged_step {
  step_id id{};
  std::vector<staged_row> rows{};
  std::vector<block_copy> saved{}, restored{};
  /// Sequences removed by this step; rows of earlier steps may still point to them.
  std::vector<std::unique_ptr<sequence>> retired{};
  std::uint32_t tokens = 0;
  bool launched = false;
  bool sampled = false;
};

simulated_executor::simulated_executor(executor_options options) : options_{std::move(options)} {}

simulated_executor::simulated_executor(executor_options options, simulated_model model)
    : options_{std::move(options)}, model_{model}, model_given_{true} {}

simulated_executor::~simulated_executor() = default;

result<void> simulated_executor::prepare(const step_batch& step) {
  if (auto ok = check_limits(step); !ok)
    return give_up(step.id, ok.error());
  staged_step staged{.id = step.id, .rows = {}, .retired = {}};
  for (const auto id : step.removed) {
    auto found = sequences_.extract(id);
    if (found.empty())
      continue;
    auto& seq = *found.mapped();
    for (; seq.held > 0; --seq.held)
      --holders_[value(seq.blocks[seq.held - 1])];
    staged.retired.push_back(std::move(found.mapped()));
  }
  if (auto ok = stage_copies(step, staged); !ok)
    return give_up(step.id, ok.error());
  for (const auto& added : step.added) {
    if (auto ok = learn(added); !ok)
      return give_up(step.id, ok.error());
  }
  for (const auto& row : step.rows) {
    if (auto ok = stage_row(row, staged); !ok)
      return give_up(step.id, ok.error());
  }
  last_prepared_ = step.id;
  staged_.push_back(std::move(staged));
  return {};
}

result<void> simulated_executor::check_limits(const step_batch& step) const {
  if (slots_.empty())
    return fail(errc::invalid_argument, "the executor is not loaded");
  if (step.id <= last_prepared_)
    return fail(errc::invalid_argument,
                fmt::format("step {} was prepared before it", value(last_prepared_)));
  std::uint64_t tokens = 0;
  for (const auto& row : step.rows)
    tokens += row.tokens;
  if (step.rows.size() > description_.max_num_seqs || tokens > description_.max_num_batched_tokens)
    return fail(errc::invalid_argument,
                fmt::format("{} rows of {} tokens are more than {} rows and {} tokens",
                            step.rows.size(), tokens, description_.max_num_seqs,
                            description_.max_num_batched_tokens));
  return {};
}

result<void> simulated_executor::learn(const new_sequence& added) {
  const auto name = fmt::format("sequence {}", value(added.id));
  if (sequences_.contains(added.id))
    return fail(errc::invalid_argument, name + " is known already");
  if (added.tokens.empty() || added.tokens.size() > description_.max_model_len ||
      added.prompt_tokens == 0 || added.prompt_tokens > added.tokens.size())
    return fail(errc::invalid_argument,
                fmt::format("{} has {} tokens, {} of them prompt; max_model_len is {}", name,
                            added.tokens.size(), added.prompt_tokens, description_.max_model_len));
  for (const auto token : added.tokens) {
    if (token < 0 || static_cast<std::uint32_t>(token) >= model_.vocab_size)
      return fail(errc::invalid_argument,
                  fmt::format("{}: token {} is outside the vocabulary of {}", name, token,
                              model_.vocab_size));
  }
  auto seq = std::make_unique<sequence>();
  seq->id = added.id;
  seq->tokens = added.tokens;
  seq->sampling = added.sampling;
  for (const auto block : added.blocks) {
    if (value(block) >= description_.num_blocks)
      return fail(errc::invalid_argument,
                  fmt::format("{}: block {} of {}", name, value(block), description_.num_blocks));
    seq->blocks.push_back(block);
  }
  sequences_.emplace(added.id, std::move(seq));
  return {};
}

/// A place is saved to once in a step, and not in the one that restores it, which comes after one
/// that saved it. Nobody has a block that is restored.
result<void> simulated_executor::stage_copies(const step_batch& step, staged_step& staged) {
  std::set<host_block> touched;
  const auto wrong = [&](const block_copy& copy) {
    return value(copy.block) >= description_.num_blocks || value(copy.host) >= saved_.size() ||
           !touched.insert(copy.host).second;
  };
  for (const auto& copy : step.saved) {
    if (wrong(copy))
      return fail(errc::invalid_argument, fmt::format("block {} cannot be saved in place {}",
                                                      value(copy.block), value(copy.host)));
    saved_[value(copy.host)] = true;
  }
  std::set<block_id> filled;
  for (const auto& copy : step.restored) {
    if (wrong(copy) || !saved_[value(copy.host)] || holders_[value(copy.block)] > 0 ||
        !filled.insert(copy.block).second)
      return fail(errc::invalid_argument, fmt::format("block {} cannot be restored from place {}",
                                                      value(copy.block), value(copy.host)));
    saved_[value(copy.host)] = false;
  }
  staged.saved = step.saved;
  staged.restored = step.restored;
  return {};
}

result<void> simulated_executor::stage_row(const step_row& row, staged_step& staged) {
  const auto found = sequences_.find(row.id);
  if (found == sequences_.end())
    return fail(errc::invalid_argument, fmt::format("sequence {} is unknown", value(row.id)));
  auto& seq = *found->second;
  const auto end = std::uint64_t{row.position} + row.tokens;
  const auto expected = seq.tokens.size() + seq.samples_pending;
  const bool twice = std::ranges::find(staged.rows, &seq, &staged_row::who) != staged.rows.end();
  if (twice || row.tokens == 0 || end > expected || (row.samples && end != expected) ||
      end > description_.max_model_len || row.position != seq.next.value_or(row.position))
    return fail(
        errc::invalid_argument,
        fmt::format("sequence {}: a row of {} tokens at {} does not follow position {} of {} "
                    "known tokens, or is the second of the step",
                    value(row.id), row.tokens, row.position, seq.next.value_or(0), expected));
  // The blocks behind a cached prefix are the sequence's own, as are all that come later.
  const auto prefix =
      seq.next ? seq.blocks.size() : (row.position + options_.block_size - 1) / options_.block_size;
  if (auto ok = hold_blocks(seq, row, prefix); !ok)
    return ok;
  staged_row out{.who = &seq,
                 .position = row.position,
                 .tokens = row.tokens,
                 .samples = row.samples,
                 .fresh = {},
                 .failure = {}};
  if (prefix < seq.blocks.size())
    out.fresh.assign(seq.blocks.begin() + static_cast<std::ptrdiff_t>(prefix), seq.blocks.end());
  seq.next = static_cast<std::uint32_t>(end);
  seq.samples_pending += row.samples ? 1 : 0;
  staged.tokens += row.tokens;
  staged.rows.push_back(std::move(out));
  return {};
}

/// Appends the row's blocks to the table and checks that those from `prefix` on are nobody else's.
result<void> simulated_executor::hold_blocks(sequence& seq, const step_row& row,
                                             std::size_t prefix) {
  seq.blocks.insert(seq.blocks.end(), row.new_blocks.begin(), row.new_blocks.end());
  for (; seq.held < seq.blocks.size(); ++seq.held) {
    const auto block = value(seq.blocks[seq.held]);
    if (block >= description_.num_blocks)
      return fail(errc::invalid_argument, fmt::format("sequence {}: block {} of {}", value(row.id),
                                                      block, description_.num_blocks));
    if (seq.held >= prefix && holders_[block] > 0)
      return fail(errc::invalid_argument,
                  fmt::format("sequence {}: block {} is given to it, but another sequence has it",
                              value(row.id), block));
    ++holders_[block];
  }
  const auto end = std::uint64_t{row.position} + row.tokens;
  if (end > std::uint64_t{seq.blocks.size()} * options_.block_size)
    return fail(errc::invalid_argument,
                fmt::format("sequence {}: {} blocks of {} tokens have no room for position {}",
                            value(row.id), seq.blocks.size(), options_.block_size, end - 1));
  return {};
}

result<simulated_executor::staged_step*> simulated_executor::find_staged(step_id step) {
  const auto found = std::ranges::find(staged_, step, &staged_step::id);
  if (found == staged_.end())
    return fail(errc::invalid_argument, "it is not prepared");
  return &*found;
}

result<void> simulated_executor::launch(step_id step) {
  auto found = find_staged(step);
  if (!found)
    return give_up(step, found.error());
  for (const auto& earlier : staged_) {
    if (earlier.id < step && !earlier.sampled)
      return give_up(step, {errc::invalid_argument, "the step before it is not sampled"});
  }
  run_copies(**found);
  for (auto& row : (*found)->rows)
    run_row(row, step);
  (*found)->launched = true;
  return {};
}

void simulated_executor::run_copies(const staged_step& staged) {
  const auto size = static_cast<std::ptrdiff_t>(options_.block_size);
  for (const auto& copy : staged.saved)
    std::copy_n(slots_.begin() + value(copy.block) * size, size,
                places_.begin() + value(copy.host) * size);
  for (const auto& copy : staged.restored)
    std::copy_n(places_.begin() + value(copy.host) * size, size,
                slots_.begin() + value(copy.block) * size);
}

/// Reads the history through the block table, writes the row's positions, and hashes both.
void simulated_executor::run_row(staged_row& row, step_id step) {
  auto& seq = *row.who;
  for (const auto block : row.fresh)
    std::fill_n(slots_.begin() + std::ptrdiff_t{value(block)} * options_.block_size,
                options_.block_size, slot{});
  const bool asked_to_fail = failing_rows_.erase({step, seq.id}) > 0;
  if (asked_to_fail || seq.broken) {
    row.failure = asked_to_fail ? "the test asked the row to fail" : "an earlier row of it failed";
    seq.broken = true;
    return;
  }
  std::uint64_t history = 0;
  for (std::uint32_t p = 0; p < row.position; ++p) {
    const auto& cell = slot_at(seq, p);
    history = extend(history, seq.tokens[p]);
    if (cell.token == seq.tokens[p] && cell.history == history)
      continue;
    row.failure = fmt::format("position {} of sequence {}: block {} holds {}", p, value(seq.id),
                              value(seq.blocks[p / options_.block_size]),
                              cell.token < 0 ? "nothing" : "another history");
    seq.broken = true;
    return;
  }
  for (auto p = row.position; p < row.position + row.tokens; ++p) {
    history = extend(history, seq.tokens[p]);
    slot_at(seq, p) = {.history = history, .token = seq.tokens[p]};
  }
  row.history = history;
}

result<void> simulated_executor::sample(step_id step) {
  auto found = find_staged(step);
  if (!found || !(*found)->launched)
    return give_up(step, {errc::invalid_argument, "it is not launched"});
  for (auto& row : (*found)->rows) {
    if (!row.samples)
      continue;
    --row.who->samples_pending;
    // A broken sequence gets a token too, so that rows prepared ahead keep their positions.
    row.sampled = row.failure.empty() ? choose(row.history, row.who->sampling) : token_id{0};
    row.who->tokens.push_back(row.sampled);
  }
  (*found)->sampled = true;
  return {};
}

result<step_result> simulated_executor::collect(step_id step) {
  if (staged_.empty() || staged_.front().id != step || !staged_.front().sampled)
    return give_up(step, {errc::invalid_argument, "it is not the next sampled step"});
  if (failing_steps_.erase(step) > 0)
    return give_up(step, {errc::internal, "the test asked the step to fail"});
  auto done = std::move(staged_.front());
  staged_.pop_front();
  step_result out{.id = step, .tokens = {}, .logprobs = {}, .failed = {}, .timings = {}};
  for (const auto& row : done.rows) {
    if (!row.failure.empty())
      out.failed.push_back({.id = row.who->id, .code = errc::internal, .note = row.failure});
    else if (row.samples)
      out.tokens.push_back({.id = row.who->id, .token = row.sampled});
    if (row.failure.empty() && row.samples && row.who->sampling.logprobs >= 0)
      out.logprobs.push_back({row.who->id, invent_logprobs(row.sampled, row.who->sampling)});
  }
  const auto copies = done.saved.size() + done.restored.size();
  out.timings.forward =
      model_.step_cost + model_.token_cost * done.tokens + model_.copy_cost * copies;
  if (model_.sleeps && out.timings.forward.count() > 0)
    std::this_thread::sleep_for(out.timings.forward);
  return out;
}

void simulated_executor::reset() {
  staged_.clear();
  sequences_.clear();
  std::ranges::fill(holders_, 0);
  std::ranges::fill(slots_, slot{});
  saved_.assign(saved_.size(), false);
  last_prepared_ = {};
}

token_id simulated_executor::next_token(std::span<const token_id> tokens,
                                        const sampling_params& sampling) const {
  std::uint64_t history = 0;
  for (const auto token : tokens)
    history = extend(history, token);
  return choose(history, sampling);
}

simulated_executor::slot& simulated_executor::slot_at(const sequence& seq, std::uint32_t position) {
  const auto block = value(seq.blocks[position / options_.block_size]);
  return slots_[std::size_t{block} * options_.block_size + position % options_.block_size];
}

/// One multiply and two shifts a token, because a decode step reads the whole history.
std::uint64_t simulated_executor::extend(std::uint64_t history, token_id token) const {
  auto x = (history ^ key_) + (static_cast<std::uint32_t>(token) + 1) * 0x9E3779B97F4A7C15U;
  x = (x ^ (x >> 32)) * 0xD6E8FEB86659FD93U;
  return x ^ (x >> 29);
}

token_id simulated_executor::choose(std::uint64_t history, const sampling_params& sampling) const {
  keyed_hash hash{key_, history};
  if (sampling.temperature >= 1e-5F) {
    hash.add(sampling.seed);
    hash.add(sampling.choice);
  }
  const auto drawn = hash.finish();
  // The upper half decides between end and word, the lower half on the word.
  if (static_cast<double>(drawn >> 32) < model_.eos_probability * 4294967296.0)
    return model_.eos_token_id;
  const auto word = static_cast<token_id>((drawn & 0xFFFFFFFFU) % model_.vocab_size);
  if (word != model_.eos_token_id || model_.vocab_size == 1)
    return word;
  return static_cast<token_id>((static_cast<std::uint32_t>(word) + 1) % model_.vocab_size);
}

/// The chosen token first, and those that follow its id, each half as likely as the one before.
token_logprobs simulated_executor::invent_logprobs(token_id chosen,
                                                   const sampling_params& sampling) const {
  constexpr float half = -0.693147F;
  token_logprobs out{.chosen = {chosen, half}, .rank = 1, .top = {}};
  const auto vocabulary = static_cast<std::uint32_t>(model_.vocab_size);
  const auto count = std::min(static_cast<std::uint32_t>(sampling.logprobs), vocabulary);
  for (std::uint32_t i = 0; i < count; ++i)
    out.top.push_back({static_cast<token_id>((static_cast<std::uint32_t>(chosen) + i) % vocabulary),
                       half * static_cast<float>(i + 1)});
  return out;
}

/// A step that fails takes all sequences with it.
tl::unexpected<error> simulated_executor::give_up(step_id step, error why) {
  const auto last = std::max(step, last_prepared_);
  reset();
  last_prepared_ = last;
  return fail(why.code, fmt::format("step {}: {}", value(step), why.note));
}

} // namespace troupe::engine
