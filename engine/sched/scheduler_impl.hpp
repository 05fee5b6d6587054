#pragma once

#include "engine/kv/block_hash.hpp"
#include "engine/sched/block_ledger.hpp"
#include "engine/sched/host_room.hpp"
#include "engine/sched/scheduler.hpp"
#include "engine/sched/sequence.hpp"

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>

namespace troupe::engine {

/// One row of the step that is being planned.
struct planned_row {
  sequence* who = nullptr;
  std::uint32_t position = 0;
  std::uint32_t tokens = 0;
  bool samples = false;
  /// Index of the first block that this row appends to the block table.
  std::uint32_t first_new_block = 0;
};

/// The step that is being planned.
struct step_plan {
  /// Tokens that may still come, and how many of prompts.
  std::uint32_t budget = 0;
  std::uint32_t prompt_budget = 0;
  /// What the account had before this step.
  std::uint32_t account = 0;
  /// Of the running sequences, once somebody asked to be let in beside them.
  std::optional<std::uint64_t> room;
  bool preempted = false;
  std::vector<planned_row> rows;
};

/// The answers that run, and what the next step could have of prompts beside them.
struct prompt_demand {
  std::uint64_t decodes = 0;
  /// Tokens that prompts lack, and of these those of whole prompts that may come together where few
  /// answers run.
  std::uint64_t lacking = 0;
  std::uint64_t some = 0;
  /// Tokens of these prompts in all, and of their answers at most.
  std::uint64_t in = 0;
  std::uint64_t out = 0;
  std::uint64_t first_arrival = ~std::uint64_t{0};
  /// More wait than have a place.
  bool crowded = false;
  /// That, or more than spread prompts may be.
  bool overflows = false;
};

/// What a row brought: null where it sampled nothing, or its request asks for no log-probabilities.
struct row_yield {
  const sampled_token* sampled = nullptr;
  const token_logprobs* likely = nullptr;
};

/// What is remembered of a row until its step comes back.
struct flying_row {
  request_id id{};
  std::uint64_t ticket = 0;
  /// One past the last position of the row.
  std::uint32_t end = 0;
  bool samples = false;
};

struct flying_step {
  step_id id{};
  std::vector<flying_row> rows;
};

/// A kv_admit that is not answered yet. Answers come in the order of the questions.
struct open_admit {
  std::uint64_t ticket = 0;
  std::uint32_t wanted = 0;
  std::uint64_t epoch = 0;
};

/// How an answer ends, for finish().
struct ending {
  finish_reason reason = finish_reason::none;
  token_id stop_token = -1;
  errc why = errc::none;
  std::string note;
};

/// An answer that ends in an error.
inline ending failure(errc why, std::string note) {
  return {finish_reason::error, -1, why, std::move(note)};
}

struct scheduler::impl {
  /// Waiting sequences in the order of their turn: {priority or 0, arrival}. A preempted sequence
  /// keeps its arrival, so under fcfs it stands before all that never ran.
  using turn = std::pair<std::int32_t, std::uint64_t>;

  explicit impl(scheduler_config given);

  // submit.cpp: requests come in and are looked up.
  [[nodiscard]] result<void> check(const submission& request) const;
  [[nodiscard]] turn turn_of(const sequence& seq) const;
  void enter(submission request, time_point now);
  void extend_hashes(sequence& seq) const;
  void ask(sequence& seq);
  void admitted(const kv_admitted& answer);
  void granted(const kv_grant& answer);
  void refresh_head();

  // account.cpp: the account of granted ids, and what is done when it is short.
  [[nodiscard]] std::uint32_t blocks_for(std::uint32_t tokens) const;
  [[nodiscard]] std::uint32_t entrance(const sequence& seq, std::uint32_t have,
                                       std::uint64_t room) const;
  [[nodiscard]] std::uint32_t room_of(const sequence& seq) const;
  [[nodiscard]] std::uint64_t room_of_running() const;
  [[nodiscard]] std::uint32_t demand() const;
  [[nodiscard]] std::uint32_t open_wants() const;
  [[nodiscard]] std::uint32_t refill() const;
  void top_up();
  void settle_account();
  [[nodiscard]] std::uint32_t account_limit() const;
  [[nodiscard]] std::uint32_t covered(std::uint32_t blocks, std::uint32_t position,
                                      std::uint32_t tokens) const;
  /// The account is short, the last answer said exhausted, and no release is on its way, nor an
  /// answer about to end.
  [[nodiscard]] bool stuck() const;
  [[nodiscard]] std::uint32_t give_up_pins(std::uint32_t wanted, const sequence* except);
  void drop_blocks(sequence& seq);

  // planner.cpp: one step.
  [[nodiscard]] std::optional<step_batch> plan(time_point now);
  void running_pass(step_plan& plan);
  void waiting_pass(step_plan& plan, time_point now);
  [[nodiscard]] bool admit_head(step_plan& plan, time_point now);
  [[nodiscard]] bool is_roomy(step_plan& plan, const sequence& head, std::uint32_t prefix) const;
  [[nodiscard]] bool whole_in_flight(const sequence& seq) const;
  [[nodiscard]] std::uint32_t tokens_wanted(const sequence& seq) const;
  [[nodiscard]] std::vector<block_id> shareable(const sequence& seq) const;
  void schedule(step_plan& plan, sequence& seq, std::uint32_t tokens);
  void unschedule(step_plan& plan, sequence& seq);
  void publish(sequence& seq);
  [[nodiscard]] bool make_room(step_plan& plan, const sequence& asking);
  [[nodiscard]] sequence* pick_victim() const;
  void set_aside(step_plan& plan, sequence& victim);
  void preempt(sequence& victim);
  [[nodiscard]] step_batch emit(step_plan& plan);
  void count_anew(sequence& seq, const planned_row& row);

  // prompt_budget.cpp: how much of prompts it has.
  [[nodiscard]] prompt_demand count_prompts() const;
  [[nodiscard]] std::uint32_t prompt_budget();

  // swap.cpp: preempted sequences in host memory.
  void save(sequence& victim);
  [[nodiscard]] sequence* longest_running() const;
  void take_turns(step_plan& plan);
  void bring_back(sequence& seq, std::uint32_t found);
  void drop_saved(sequence& seq);
  [[nodiscard]] bool rests_on(const saved_blocks& saved, std::uint64_t ticket) const;

  // results.cpp: steps come back.
  void step_done(const step_result& done, time_point now);
  void step_failed(const error& why, time_point now);
  void row_failed(const failed_row& row, const flying_step& step, time_point now);
  void disown(std::uint64_t ticket);
  void start_anew(sequence& seq);
  void row_done(sequence& seq, const flying_row& row, const row_yield& got, time_point now);
  void commit_blocks(sequence& seq);
  [[nodiscard]] sequence* find(request_id id, std::uint64_t ticket) const;

  // finish.cpp: tokens and endings.
  [[nodiscard]] ending check_stop(const sequence& seq) const;
  void deliver(sequence& seq, std::span<const token_id> fresh, const ending& how,
               const token_logprobs* likely = nullptr);
  void finish(sequence& seq, const ending& how, time_point now);
  void forget(sequence& seq, finish_reason reason, time_point now);
  void expire(time_point now);

  scheduler_config config;
  block_hasher hasher;
  block_ledger ledger;
  host_room host;
  /// The most ids that the account may hold, unless the next of the queue comes back with more.
  std::uint32_t account_cap = 0;

  /// Never iterated; `waiting` and `running` have the order.
  std::unordered_map<request_id, std::unique_ptr<sequence>> sequences;
  std::map<turn, sequence*> waiting;
  std::vector<sequence*> running;
  std::set<std::pair<time_point, std::uint64_t>> deadlines;
  std::unordered_map<std::uint64_t, request_id> by_arrival;
  std::deque<flying_step> in_flight;
  step_id last_step{};
  step_id ended_step{};
  /// What was begun at another replica stands before all that never ran: somebody reads it.
  std::uint64_t last_resumption = 0;
  std::uint64_t last_arrival = std::uint64_t{1} << 62;
  /// And before these who was saved.
  std::uint64_t last_saved = std::uint64_t{1} << 61;
  std::uint64_t last_ticket = 0;
  /// The last to arrive while more waited than spread prompts may be.
  std::uint64_t backlog_until = 0;
  /// The last to arrive while many answers ran and many prompts waited.
  std::uint64_t balanced_until = 0;
  /// Sequences that the executor knows and is to forget with the next step.
  std::vector<request_id> removed;
  /// What the step that is being planned copies to host memory and from there.
  std::vector<block_copy> saves;
  std::vector<block_copy> restores;

  std::unordered_map<request_id, std::deque<open_admit>> open_admits;
  std::uint32_t admits_wanted = 0;
  std::optional<open_admit> open_want;
  /// The ledger's epoch at the last question that was answered `exhausted`.
  std::optional<std::uint64_t> exhausted_epoch;
  /// A running sequence lacks blocks: nobody new is looked up meanwhile.
  bool pressed = false;
  /// A running answer ends with a step in flight, surely, and its blocks come home behind it.
  bool one_ends = false;

  std::vector<kv_commit> commits;
  std::vector<kv_admit> admits;
  std::optional<kv_want> want;
  std::vector<std::pair<hub_id, std::vector<token_chunk>>> chunks;
  std::vector<request_timing> finished;
  scheduler_stats counters;
};

} // namespace troupe::engine
