#pragma once

#include "engine/kv/block_pool.hpp"
#include "engine/sched/scheduler.hpp"
#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

/// The scheduler in a closed loop with a block pool and a worker without arithmetic, for tests.
namespace troupe::engine::test {

/// The hash of a history; the token that follows it is a pure function of it.
inline std::uint64_t extend_history(std::uint64_t history, token_id token) {
  splitmix64 mix{history * 31 + static_cast<std::uint32_t>(token) + 1};
  return mix();
}

inline token_id token_after(std::uint64_t history, token_id vocab) {
  return static_cast<token_id>((history >> 20) % static_cast<std::uint64_t>(vocab));
}

/// What a request must bring when nothing disturbs it.
struct expected_answer {
  std::vector<token_id> tokens;
  finish_reason finish = finish_reason::none;
};

/// Decodes `prompt` alone, the naive way.
inline expected_answer decode_alone(const std::vector<token_id>& prompt,
                                    const sampling_params& sampling, std::uint32_t max_model_len,
                                    token_id vocab) {
  const auto has = [](const std::vector<token_id>& in, token_id t) {
    return std::ranges::find(in, t) != in.end();
  };
  std::uint64_t history = 0;
  for (const auto token : prompt)
    history = extend_history(history, token);
  expected_answer out;
  while (out.finish == finish_reason::none) {
    const auto token = token_after(history, vocab);
    history = extend_history(history, token);
    out.tokens.push_back(token);
    const bool eos = !sampling.ignore_eos && has(sampling.eos_token_ids, token);
    if (eos || has(sampling.stop_token_ids, token))
      out.finish = finish_reason::stop;
    else if (out.tokens.size() >= sampling.max_tokens ||
             prompt.size() + out.tokens.size() >= max_model_len)
      out.finish = finish_reason::length;
  }
  return out;
}

/// A worker that keeps token ids in paged slots and checks whatever it is told.
class fake_worker {
public:
  fake_worker(const scheduler_config& config, token_id vocab)
      : config_{config}, vocab_{vocab}, slots_(std::size_t{config.num_blocks} * config.block_size) {
  }

  void start(step_batch step) { queue_.push_back(std::move(step)); }
  [[nodiscard]] std::size_t queued() const { return queue_.size(); }
  [[nodiscard]] const std::deque<step_batch>& queue() const { return queue_; }

  /// Runs the oldest step. Rows of `failing` fail alone.
  [[nodiscard]] step_result run(const std::set<request_id>& failing) {
    const auto step = std::move(queue_.front());
    queue_.pop_front();
    for (const auto id : step.removed)
      sequences_.erase(id);
    for (const auto& added : step.added) {
      REQUIRE_FALSE(sequences_.contains(added.id));
      sequences_[added.id] = {.tokens = added.tokens, .blocks = added.blocks};
    }
    step_result out{.id = step.id, .tokens = {}, .failed = {}, .timings = {}};
    REQUIRE(step.rows.size() <= config_.max_num_seqs);
    std::uint32_t budget = config_.max_num_batched_tokens;
    for (const auto& row : step.rows) {
      REQUIRE(row.tokens <= budget);
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
    for (const auto& step : queue_) {
      for (const auto& added : step.added) {
        if (learns_late)
          sequences_[added.id] = {.tokens = added.tokens, .blocks = added.blocks};
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
    for (const auto& step : queue_) {
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

private:
  struct slot {
    std::uint64_t history = 0;
    token_id token = -1;
  };
  struct known_sequence {
    std::vector<token_id> tokens;
    std::vector<block_id> blocks;
    std::optional<std::uint32_t> next{};
    bool broken = false;
  };

  slot& at(const known_sequence& seq, std::uint32_t position) {
    const auto block = value(seq.blocks.at(position / config_.block_size));
    return slots_.at(std::size_t{block} * config_.block_size + position % config_.block_size);
  }

  void run_row(const step_row& row, bool fails, step_result& out) {
    REQUIRE(sequences_.contains(row.id));
    auto& seq = sequences_.at(row.id);
    const auto size = config_.block_size;
    const auto prefix = seq.next ? seq.blocks.size() : (row.position + size - 1) / size;
    seq.blocks.insert(seq.blocks.end(), row.new_blocks.begin(), row.new_blocks.end());
    for (auto i = prefix; i < seq.blocks.size(); ++i)
      std::fill_n(slots_.begin() + std::ptrdiff_t{value(seq.blocks[i])} * size, size, slot{});
    const auto end = row.position + row.tokens;
    REQUIRE(row.tokens > 0);
    REQUIRE(end < config_.max_model_len);
    REQUIRE(row.position == seq.next.value_or(row.position));
    REQUIRE(end <= seq.blocks.size() * size);
    seq.next = end;
    if (fails)
      last_fault_ = value(out.id);
    if (!seq.broken && !reads_well(seq, row.position)) {
      // Nothing but a row that a test made fail leaves a hole in what others read.
      REQUIRE(last_fault_ + config_.steps_ahead >= value(out.id));
      seq.broken = true;
    }
    seq.broken = seq.broken || fails;
    if (seq.broken) {
      if (row.samples)
        seq.tokens.push_back(0);
      out.failed.push_back({.id = row.id, .code = errc::internal, .note = "row failed"});
      return;
    }
    REQUIRE(end <= seq.tokens.size());
    std::uint64_t history = row.position == 0 ? 0 : at(seq, row.position - 1).history;
    for (auto p = row.position; p < end; ++p) {
      history = extend_history(history, seq.tokens[p]);
      at(seq, p) = {.history = history, .token = seq.tokens[p]};
    }
    REQUIRE(row.samples == (end == seq.tokens.size()));
    if (!row.samples)
      return;
    seq.tokens.push_back(token_after(history, vocab_));
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
      REQUIRE(cell.token == seq.tokens[p]);
      REQUIRE(cell.history == history);
    }
    return true;
  }

  scheduler_config config_;
  token_id vocab_;
  /// The last step in which a test made a row fail; far in the past at first.
  std::uint64_t last_fault_ = 0;
  std::vector<slot> slots_;
  std::deque<step_batch> queue_;
  std::unordered_map<request_id, known_sequence> sequences_;
};

/// What the client of one request saw.
struct client {
  submission request;
  expected_answer expected;
  std::vector<token_id> seen;
  finish_reason finish = finish_reason::none;
  bool disturbed = false;
  std::pair<std::int32_t, std::uint64_t> turn;
};

/// Scheduler, pool, worker and clients, with messages on the way that a test delivers when it
/// likes.
class world {
public:
  using to_kv = std::variant<kv_commit, kv_release, kv_admit, kv_want>;
  using from_kv = std::variant<kv_admitted, kv_grant>;

  world(scheduler_config config, token_id vocab)
      : config{config}, vocab{vocab}, sched{config}, pool{config.num_blocks, config.block_size},
        worker{config, vocab}, references(config.num_blocks) {}

  /// Submits; the client is known when the scheduler takes the request.
  result<void> submit(submission request) {
    const auto id = request.id;
    auto taken = sched.submit(request, now);
    if (taken) {
      REQUIRE_FALSE(live.contains(id));
      client fresh{.request = request,
                   .expected =
                       decode_alone(request.prompt, request.sampling, config.max_model_len, vocab),
                   .seen = request.delivered,
                   .turn = {config.policy == scheduling_policy::priority ? request.priority : 0,
                            ++arrivals}};
      live.emplace(id, std::move(fresh));
    }
    after_event();
    return taken;
  }

  void cancel_hub(hub_id hub) {
    for (auto& [id, who] : live)
      who.disturbed = who.disturbed || who.request.sink.hub == hub;
    sched.cancel_hub(hub, now);
    after_event();
  }

  void cancel(request_id id) {
    if (const auto found = live.find(id); found != live.end())
      found->second.disturbed = true;
    sched.cancel(id, finish_reason::abort, now);
    after_event();
  }

  void expire() {
    for (auto& [id, who] : live)
      who.disturbed = who.disturbed || who.request.timeout.count() > 0;
    sched.expire(now);
    after_event();
    const auto next = sched.next_deadline();
    REQUIRE((!next || *next > now));
  }

  /// Delivers one message to the kv_manager.
  bool step_kv() {
    if (to_pool.empty())
      return false;
    const auto message = std::move(to_pool.front());
    to_pool.pop_front();
    if (const auto* done = std::get_if<kv_commit>(&message))
      pool.commit(*done);
    if (const auto* given = std::get_if<kv_release>(&message))
      pool.release(*given);
    if (const auto* ask = std::get_if<kv_admit>(&message)) {
      auto answer = pool.admit(*ask);
      check_granted(answer.granted);
      to_sched.emplace_back(std::move(answer));
    }
    if (const auto* ask = std::get_if<kv_want>(&message)) {
      auto answer = pool.want(*ask);
      check_granted(answer.granted);
      to_sched.emplace_back(std::move(answer));
    }
    return true;
  }

  /// Delivers one answer of the kv_manager.
  bool step_answer() {
    if (to_sched.empty())
      return false;
    const auto answer = std::move(to_sched.front());
    to_sched.pop_front();
    if (const auto* admitted = std::get_if<kv_admitted>(&answer)) {
      count_references(admitted->cached);
      count_references(admitted->granted);
      sched.admitted(*admitted, now);
    }
    if (const auto* granted = std::get_if<kv_grant>(&answer)) {
      count_references(granted->granted);
      sched.granted(*granted);
    }
    after_event();
    return true;
  }

  bool step_plan() {
    auto step = sched.plan(now);
    if (step) {
      REQUIRE(value(step->id) == ++steps);
      for (const auto id : step->removed)
        REQUIRE((planned.erase(id) == 1 || lost.erase(id) == 1));
      for (const auto& added : step->added)
        REQUIRE(planned.insert(added.id).second);
      check_turns(*step);
      worker.start(std::move(*step));
      REQUIRE(worker.queued() <= config.steps_ahead);
    }
    after_event();
    return step.has_value();
  }

  bool step_worker(const std::set<request_id>& failing = {}) {
    if (worker.queued() == 0)
      return false;
    const auto done = worker.run(failing);
    for (const auto& failed : done.failed) {
      if (const auto found = live.find(failed.id); found != live.end())
        found->second.disturbed = true;
    }
    sched.step_done(done, now);
    after_event();
    return true;
  }

  void fail_step(bool learns_late) {
    for (auto& [id, who] : live)
      who.disturbed = true;
    worker.lose_everything(learns_late);
    lost.insert(planned.begin(), planned.end());
    planned.clear();
    sched.step_failed({errc::internal, "the device is lost"}, now);
    after_event();
    REQUIRE(live.empty());
    stale_step = step_id{steps};
  }

  /// The answer to a step that went down with an earlier one arrives late, and changes nothing.
  void hear_stale_step() {
    const auto before = live.size();
    sched.step_done({.id = stale_step, .tokens = {}, .failed = {}, .timings = {}}, now);
    sched.step_failed(stale_step, {errc::internal, "the device is lost"}, now);
    after_event();
    REQUIRE(live.size() == before);
  }

  /// Everything goes on, in a fixed order, until nobody is left.
  /// @return how many rounds it took
  std::uint32_t drain(std::uint32_t most_rounds) {
    for (std::uint32_t round = 0; round < most_rounds; ++round) {
      bool moved = false;
      while (step_kv() || step_answer())
        moved = true;
      moved = step_plan() || moved;
      while (step_kv() || step_answer())
        moved = true;
      moved = step_plan() || moved;
      moved = step_worker() || moved;
      if (sched.idle() && to_pool.empty() && to_sched.empty())
        return round;
      INFO("live " << live.size() << ", blocks used " << sched.stats().blocks_used);
      REQUIRE(moved);
    }
    FAIL("no end after " << most_rounds << " rounds, " << live.size() << " requests are left");
    return most_rounds;
  }

  /// At the end every block is at home.
  void check_home() {
    REQUIRE(sched.idle());
    REQUIRE(pool.stats().used == 0); // unused ids go back by themselves
    sched.return_account();
    after_event();
    while (step_kv() || step_answer()) {
    }
    REQUIRE(live.empty());
    REQUIRE(sched.stats().blocks_used == 0);
    REQUIRE(pool.stats().used == 0);
    REQUIRE(std::ranges::all_of(references, [](auto n) { return n == 0; }));
  }

  scheduler_config config;
  token_id vocab;
  time_point now{};
  scheduler sched;
  block_pool pool;
  fake_worker worker;
  std::deque<to_kv> to_pool;
  std::deque<from_kv> to_sched;
  std::map<request_id, client> live;
  /// Requests that ended, by how.
  std::map<finish_reason, std::uint64_t> ends;
  std::uint64_t undisturbed_ends = 0;
  std::uint64_t cached_tokens = 0;

private:
  void count_references(const std::vector<block_id>& blocks) {
    for (const auto block : blocks)
      ++references.at(value(block));
  }

  /// Nobody computes on a block that the pool gives away.
  void check_granted(const std::vector<block_id>& blocks) {
    for (const auto block : blocks)
      REQUIRE_FALSE(worker.uses(block));
  }

  /// Nobody is taken from the queue before one whose turn is earlier.
  void check_turns(const step_batch& step) {
    for (const auto& added : step.added) {
      const auto turn = live.at(added.id).turn;
      for (const auto& [id, who] : live)
        REQUIRE((planned.contains(id) || who.turn > turn));
    }
  }

  void after_event() {
    auto actions = sched.take_actions();
    for (auto& done : actions.commits) {
      for (const auto& filled : done.blocks)
        REQUIRE(worker.holds(filled.block, filled.tokens));
      to_pool.emplace_back(std::move(done));
    }
    for (auto& given : actions.releases) {
      for (const auto& entry : given.blocks)
        REQUIRE(references.at(value(entry.block))-- > 0);
      to_pool.emplace_back(std::move(given));
    }
    for (auto& ask : actions.admits)
      to_pool.emplace_back(std::move(ask));
    if (actions.want)
      to_pool.emplace_back(*actions.want);
    std::set<hub_id> hubs;
    for (const auto& [hub, batch] : actions.tokens) {
      REQUIRE(hubs.insert(hub).second);
      for (const auto& chunk : batch)
        receive(hub, chunk);
    }
    check_account();
    for (const auto& timing : sched.take_finished())
      REQUIRE(timing.finish != finish_reason::none);
  }

  void check_account() {
    const auto mine = std::ranges::count_if(references, [](auto n) { return n > 0; });
    const auto account = static_cast<std::uint32_t>(mine) - sched.stats().blocks_used;
    const auto step = std::min(config.max_num_batched_tokens, config.max_model_len);
    const auto one = (step + config.block_size - 1) / config.block_size + 1;
    REQUIRE(account <= std::min(config.num_blocks, std::max(config.num_blocks / 8, one)));
  }

  void receive(hub_id hub, const token_chunk& chunk) {
    REQUIRE(live.contains(chunk.request));
    auto& who = live.at(chunk.request);
    REQUIRE(hub == who.request.sink.hub);
    REQUIRE(chunk.stream == who.request.sink.stream);
    REQUIRE(chunk.attempt == who.request.attempt);
    REQUIRE(chunk.offset == who.seen.size());
    who.seen.insert(who.seen.end(), chunk.ids.begin(), chunk.ids.end());
    cached_tokens += chunk.cached_tokens;
    REQUIRE(who.seen.size() <= who.expected.tokens.size());
    REQUIRE(std::ranges::equal(who.seen, std::span{who.expected.tokens}.first(who.seen.size())));
    if (chunk.finish == finish_reason::none)
      return;
    ++ends[chunk.finish];
    if (chunk.finish == finish_reason::stop || chunk.finish == finish_reason::length) {
      REQUIRE(chunk.finish == who.expected.finish);
      REQUIRE(who.seen == who.expected.tokens);
      REQUIRE((chunk.finish == finish_reason::length || chunk.stop_token == who.seen.back()));
      ++undisturbed_ends;
    } else {
      REQUIRE(who.disturbed);
    }
    ended.push_back(chunk.request);
    live.erase(chunk.request);
  }

  std::uint64_t steps = 0;
  std::uint64_t arrivals = 0;
  /// Sequences that the worker will know when all planned steps ran.
  std::set<request_id> planned;
  /// Sequences that a lost worker may or may not know.
  std::set<request_id> lost;
  step_id stale_step{};
  /// References that the kv_manager counts for the scheduler, by the messages seen.
  std::vector<std::uint32_t> references;

public:
  std::vector<request_id> ended;
};

} // namespace troupe::engine::test
