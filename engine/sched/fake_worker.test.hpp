#pragma once

#include "engine/sched/promise.test.hpp"
#include "engine/sched/scheduler.hpp"
#include "engine/sched/toy_model.test.hpp"

#include <algorithm>
#include <deque>
#include <optional>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

namespace troupe::engine::test {

/// A worker that keeps token ids in paged slots and checks whatever it is told.
class fake_worker {
public:
  fake_worker(const scheduler_config& config, const toy_model& model)
      : config_{config}, model_{model}, slots_(std::size_t{config.num_blocks} * config.block_size),
        places_(config.num_host_blocks) {}

  void start(step_batch step) { queue_.push_back(std::move(step)); }
  [[nodiscard]] std::size_t queued() const { return queue_.size(); }
  [[nodiscard]] const std::deque<step_batch>& queue() const { return queue_; }

  /// Runs the oldest step. Rows of `failing` fail alone.
  [[nodiscard]] step_result run(const std::set<request_id>& failing) {
    const auto step = std::move(queue_.front());
    queue_.pop_front();
    for (const auto id : step.removed)
      sequences_.erase(id);
    save(step);
    restore(step);
    for (const auto& added : step.added) {
      TROUPE_PROMISE(!sequences_.contains(added.id), "request {} is added twice", value(added.id));
      learn(added);
    }
    step_result out{.id = step.id, .tokens = {}, .logprobs = {}, .failed = {}, .timings = {}};
    TROUPE_PROMISE(step.rows.size() <= config_.max_num_seqs);
    std::uint32_t budget = config_.max_num_batched_tokens;
    for (const auto& row : step.rows) {
      TROUPE_PROMISE(row.tokens <= budget);
      budget -= row.tokens;
      run_row(row, failing.contains(row.id), out);
    }
    return out;
  }

  /// The device is lost: everybody is forgotten, all contents are garbage. What steps on their way
  /// add may be learnt all the same.
  void lose_everything(bool learns_late) {
    sequences_.clear();
    std::ranges::fill(slots_, slot{});
    std::ranges::fill(places_, std::nullopt);
    for (const auto& step : queue_) {
      for (const auto id : step.removed)
        sequences_.erase(id);
      for (const auto& added : step.added) {
        if (learns_late)
          learn(added);
      }
    }
    queue_.clear();
  }

  /// Whether the block holds these tokens.
  [[nodiscard]] bool holds(block_id block, std::span<const token_id> tokens) const {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (slots_[std::size_t{value(block)} * config_.block_size + i].token != tokens[i])
        return false;
    }
    return tokens.size() == config_.block_size;
  }

  /// Whether a step that is not done reads or writes the block.
  [[nodiscard]] bool uses(block_id block) const {
    const auto in = [&](const std::vector<block_id>& blocks) {
      return std::ranges::find(blocks, block) != blocks.end();
    };
    std::set<request_id> gone;
    const auto copies = [&](const std::vector<block_copy>& copied) {
      return std::ranges::find(copied, block, &block_copy::block) != copied.end();
    };
    for (const auto& step : queue_) {
      if (copies(step.saved) || copies(step.restored))
        return true;
      gone.insert(step.removed.begin(), step.removed.end());
      if (std::ranges::any_of(step.added, [&](const auto& seq) { return in(seq.blocks); }))
        return true;
      for (const auto& row : step.rows) {
        const auto known = sequences_.find(row.id);
        const bool old = known != sequences_.end() && !gone.contains(row.id);
        if (in(row.new_blocks) || (old && in(known->second.blocks)))
          return true;
      }
    }
    return false;
  }

  /// Positions that rows computed so far.
  [[nodiscard]] std::uint64_t computed() const { return computed_; }

private:
  struct slot {
    std::uint64_t history = 0;
    token_id token = -1;
  };
  struct known_sequence {
    std::vector<token_id> tokens;
    std::vector<block_id> blocks;
    sampling_params sampling;
    std::optional<std::uint32_t> next{};
    bool broken = false;
  };

  std::span<slot> contents(block_id block) {
    TROUPE_PROMISE(value(block) < config_.num_blocks, "block {}", value(block));
    return std::span{slots_}.subspan(std::size_t{value(block)} * config_.block_size,
                                     config_.block_size);
  }

  /// What a place held before, a later restore would miss.
  void save(const step_batch& step) {
    std::set<host_block> places;
    for (const auto& copy : step.saved) {
      TROUPE_PROMISE(value(copy.host) < places_.size(), "place {}", value(copy.host));
      TROUPE_PROMISE(places.insert(copy.host).second, "place {} twice", value(copy.host));
      const auto block = contents(copy.block);
      // Nothing but a row that a test made fail leaves a block empty.
      TROUPE_PROMISE(block[0].token != -1 || last_fault_ + config_.steps_ahead >= value(step.id),
                     "block {} is saved before it is filled", value(copy.block));
      places_[value(copy.host)].emplace(block.begin(), block.end());
    }
  }

  /// Into blocks of nobody: whom they are for comes with the same step.
  void restore(const step_batch& step) {
    std::set<block_id> blocks;
    for (const auto& copy : step.restored) {
      TROUPE_PROMISE(value(copy.host) < places_.size(), "place {}", value(copy.host));
      auto& place = places_[value(copy.host)];
      TROUPE_PROMISE(place.has_value(), "place {} is empty", value(copy.host));
      TROUPE_PROMISE(std::ranges::find(step.saved, copy.host, &block_copy::host) ==
                     step.saved.end());
      TROUPE_PROMISE(blocks.insert(copy.block).second, "block {} twice", value(copy.block));
      for (const auto& [id, seq] : sequences_)
        TROUPE_PROMISE(std::ranges::find(seq.blocks, copy.block) == seq.blocks.end(),
                       "block {} is restored, but request {} has it", value(copy.block), value(id));
      TROUPE_PROMISE(std::ranges::any_of(step.added,
                                         [&](const auto& seq) {
                                           return std::ranges::find(seq.blocks, copy.block) !=
                                                  seq.blocks.end();
                                         }),
                     "block {} is restored for nobody", value(copy.block));
      std::ranges::copy(*place, contents(copy.block).begin());
      place.reset();
    }
  }

  slot& at(const known_sequence& seq, std::uint32_t position) {
    const auto block = value(seq.blocks.at(position / config_.block_size));
    return slots_.at(std::size_t{block} * config_.block_size + position % config_.block_size);
  }

  void learn(const new_sequence& added) {
    sequences_[added.id] = {
        .tokens = added.tokens, .blocks = added.blocks, .sampling = added.sampling};
  }

  void run_row(const step_row& row, bool fails, step_result& out) {
    TROUPE_PROMISE(sequences_.contains(row.id));
    auto& seq = sequences_.at(row.id);
    const auto size = config_.block_size;
    const auto prefix = seq.next ? seq.blocks.size() : (row.position + size - 1) / size;
    seq.blocks.insert(seq.blocks.end(), row.new_blocks.begin(), row.new_blocks.end());
    for (auto i = prefix; i < seq.blocks.size(); ++i)
      std::fill_n(slots_.begin() + std::ptrdiff_t{value(seq.blocks[i])} * size, size, slot{});
    const auto end = row.position + row.tokens;
    TROUPE_PROMISE(row.tokens > 0);
    TROUPE_PROMISE(end < config_.max_model_len);
    TROUPE_PROMISE(row.position == seq.next.value_or(row.position));
    TROUPE_PROMISE(end <= seq.blocks.size() * size);
    computed_ += row.tokens;
    seq.next = end;
    if (fails)
      last_fault_ = value(out.id);
    if (!seq.broken && !reads_well(seq, row.position)) {
      // Nothing but a row that a test made fail leaves a hole in what others read.
      TROUPE_PROMISE(last_fault_ + config_.steps_ahead >= value(out.id));
      seq.broken = true;
    }
    seq.broken = seq.broken || fails;
    if (seq.broken) {
      if (row.samples)
        seq.tokens.push_back(0);
      out.failed.push_back({.id = row.id, .code = errc::internal, .note = "row failed"});
      return;
    }
    TROUPE_PROMISE(end <= seq.tokens.size());
    std::uint64_t history = row.position == 0 ? 0 : at(seq, row.position - 1).history;
    for (auto p = row.position; p < end; ++p) {
      history = extend_history(history, seq.tokens[p]);
      at(seq, p) = {.history = history, .token = seq.tokens[p]};
    }
    TROUPE_PROMISE(row.samples == (end == seq.tokens.size()));
    if (!row.samples)
      return;
    seq.tokens.push_back(model_.next(history, seq.sampling, end));
    out.tokens.push_back({.id = row.id, .token = seq.tokens.back()});
  }

  /// A slot that belongs to another history is a defect of the scheduler; one that is empty may be
  /// the trace of a failed row, and fails this row too.
  bool reads_well(const known_sequence& seq, std::uint32_t end) {
    std::uint64_t history = 0;
    for (std::uint32_t p = 0; p < end; ++p) {
      const auto& cell = at(seq, p);
      history = extend_history(history, seq.tokens.at(p));
      if (cell.token == -1)
        return false;
      TROUPE_PROMISE(cell.token == seq.tokens[p]);
      TROUPE_PROMISE(cell.history == history);
    }
    return true;
  }

  scheduler_config config_;
  toy_model model_;
  /// The last step in which a test made a row fail; far in the past at first.
  std::uint64_t last_fault_ = 0;
  std::vector<slot> slots_;
  /// Host memory: what was saved and not restored since.
  std::vector<std::optional<std::vector<slot>>> places_;
  std::uint64_t computed_ = 0;
  std::deque<step_batch> queue_;
  std::unordered_map<request_id, known_sequence> sequences_;
};
} // namespace troupe::engine::test
