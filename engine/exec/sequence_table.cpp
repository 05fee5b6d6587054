#include "engine/exec/sequence_table.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <unordered_set>
#include <utility>

namespace troupe::engine {

namespace {

auto wrong(request_id id, std::string_view what) {
  return fail(errc::invalid_argument, fmt::format("sequence {}: {}", value(id), what));
}

} // namespace

result<void> sequence_table::apply(const step_batch& step, std::vector<row>& rows) {
  const auto named = [&](const error& e) {
    return fail(e.code, fmt::format("step {}: {}", value(step.id), e.note));
  };
  std::uint64_t tokens = 0;
  for (const step_row& asked : step.rows)
    tokens += asked.tokens;
  if (step.rows.size() > limits_.max_rows || tokens > limits_.max_tokens)
    return named({errc::invalid_argument,
                  fmt::format("{} rows with {} tokens are more than the {} rows or {} tokens of a "
                              "step",
                              step.rows.size(), tokens, limits_.max_rows, limits_.max_tokens)});
  for (const request_id id : step.removed)
    forget(id);
  for (const new_sequence& added : step.added)
    if (auto learned = learn(added); !learned)
      return named(learned.error());
  if (auto good = check_copies(step); !good)
    return named(good.error());
  for (const step_row& asked : step.rows) {
    auto checked = check(asked, step.id);
    if (!checked)
      return named(checked.error());
    rows.push_back(*checked);
  }
  return {};
}

result<void> sequence_table::check_numbers(const block_copy& copy, std::string_view verb) const {
  if (value(copy.block) < limits_.num_blocks && value(copy.host) < limits_.num_host_blocks)
    return {};
  return fail(errc::invalid_argument,
              fmt::format("{} block {} with host place {}, and there are {} blocks and {} places",
                          verb, value(copy.block), value(copy.host), limits_.num_blocks,
                          limits_.num_host_blocks));
}

result<void> sequence_table::check_copies(const step_batch& step) {
  const auto wrong_place = [](const block_copy& copy, std::string_view what) {
    return fail(errc::invalid_argument, fmt::format("host place {} {}", value(copy.host), what));
  };
  for (const block_copy& copy : step.saved) {
    if (auto good = check_numbers(copy, "saves"); !good)
      return good;
    if (std::exchange(places_[value(copy.host)], place::saved) == place::saved)
      return wrong_place(copy, "is saved to twice");
  }
  std::unordered_set<block_id> filled;
  for (const block_copy& copy : step.restored) {
    if (auto good = check_numbers(copy, "restores"); !good)
      return good;
    const place had = std::exchange(places_[value(copy.host)], place::restored);
    if (had == place::restored)
      return wrong_place(copy, "is restored from twice");
    // Free with the step behind this one: what it held would be lost before it is restored.
    if (had == place::saved)
      return wrong_place(copy, "is saved to and restored from in one step");
    if (had == place::empty)
      return wrong_place(copy, "is restored from, and nothing was saved there");
    if (!filled.insert(copy.block).second)
      return fail(errc::invalid_argument,
                  fmt::format("block {} is restored twice", value(copy.block)));
  }
  for (const block_copy& copy : step.saved)
    places_[value(copy.host)] = place::held;
  for (const block_copy& copy : step.restored)
    places_[value(copy.host)] = place::empty;
  return {};
}

void sequence_table::forget(request_id id) {
  // A sequence whose prefill never began may be unknown here; forgetting it twice does no harm.
  const auto at = known_.find(id);
  if (at == known_.end())
    return;
  retired_.push_back(std::move(at->second));
  known_.erase(at);
}

result<void> sequence_table::learn(const new_sequence& added) {
  if (added.tokens.empty() || added.tokens.size() > limits_.max_model_len)
    return wrong(added.id, fmt::format("{} tokens; it must have 1 to {}", added.tokens.size(),
                                       limits_.max_model_len));
  for (const token_id token : added.tokens)
    if (token < 0 || static_cast<std::uint32_t>(token) >= limits_.vocab_size)
      return wrong(added.id, fmt::format("token {} is outside the vocabulary of {}", token,
                                         limits_.vocab_size));
  auto sequence = std::make_unique<known_sequence>();
  const std::size_t longest =
      std::min<std::size_t>(limits_.max_model_len, added.tokens.size() + added.sampling.max_tokens);
  sequence->id = added.id;
  sequence->tokens.reserve(longest + 1);
  sequence->tokens = added.tokens;
  sequence->blocks.reserve(longest / limits_.block_size + 2);
  sequence->sampling = added.sampling;
  if (auto blocks = add_blocks(*sequence, added.blocks); !blocks)
    return blocks;
  if (!known_.try_emplace(added.id, std::move(sequence)).second)
    return wrong(added.id, "is known already; it has to be removed before it is added again");
  return {};
}

result<void> sequence_table::add_blocks(known_sequence& sequence,
                                        const std::vector<block_id>& blocks) {
  for (const block_id block : blocks) {
    if (value(block) >= limits_.num_blocks)
      return wrong(sequence.id, fmt::format("block {} is outside the cache of {} blocks",
                                            value(block), limits_.num_blocks));
    sequence.blocks.push_back(block);
  }
  return {};
}

result<sequence_table::row> sequence_table::check(const step_row& asked, step_id step) {
  const auto at = known_.find(asked.id);
  if (at == known_.end())
    return wrong(asked.id, "is unknown; it has to be added first");
  known_sequence& sequence = *at->second;
  if (auto blocks = add_blocks(sequence, asked.new_blocks); !blocks)
    return fail(blocks.error());
  const std::uint64_t end = std::uint64_t{asked.position} + asked.tokens;
  const std::uint64_t known = sequence.tokens.size() + sequence.promised;
  if (sequence.started && sequence.last_step == step)
    return wrong(asked.id, "has two rows in one step");
  if (sequence.failure) {
    // Planned before anybody knew of the failure: the row fails too, whatever it asks for.
    sequence.last_step = step;
    return row{&sequence, asked.position, asked.tokens, asked.samples};
  }
  if (asked.tokens == 0 || end > known || end > limits_.max_model_len)
    return wrong(asked.id, fmt::format("positions [{}, {}) are empty, or beyond its {} tokens or "
                                       "max_model_len {}",
                                       asked.position, end, known, limits_.max_model_len));
  if (sequence.started && asked.position > sequence.computed)
    return wrong(asked.id, fmt::format("position {} leaves a gap behind the {} computed ones",
                                       asked.position, sequence.computed));
  if (asked.samples && end != known)
    return wrong(asked.id,
                 fmt::format("samples behind position {}, but has {} tokens", end, known));
  if (end > std::uint64_t{sequence.blocks.size()} * limits_.block_size)
    return wrong(asked.id, fmt::format("its {} blocks do not reach position {}",
                                       sequence.blocks.size(), end - 1));
  const bool begins = !std::exchange(sequence.started, true);
  sequence.last_step = step;
  sequence.computed = static_cast<std::uint32_t>(end);
  if (asked.samples)
    ++sequence.promised;
  return row{&sequence, asked.position, asked.tokens, asked.samples, begins};
}

void sequence_table::release(step_id step) noexcept {
  std::erase_if(retired_, [&](const auto& sequence) { return sequence->last_step <= step; });
}

void sequence_table::clear() noexcept {
  known_.clear();
  retired_.clear();
  std::ranges::fill(places_, place::empty);
}

} // namespace troupe::engine
