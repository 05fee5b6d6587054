#pragma once

#include "engine/kv/block_pool.hpp"
#include "engine/sched/fake_worker.test.hpp"

#include <map>
#include <utility>
#include <variant>

namespace troupe::engine::test {

/// Scheduler, pool and worker of one replica in a closed loop, with messages on the way that the
/// owner delivers when it likes. Checks what the three promise each other; what they promise to
/// clients is for the heir to check in `receive`.
class replica_loop {
public:
  using to_kv = std::variant<kv_commit, kv_release, kv_admit, kv_want>;
  using from_kv = std::variant<kv_admitted, kv_grant>;

  replica_loop(const scheduler_config& config, const toy_model& model)
      : config{config}, sched{config}, pool{config.num_blocks, config.block_size}, worker{config,
                                                                                          model},
        references_(config.num_blocks) {}
  virtual ~replica_loop() = default;
  replica_loop(const replica_loop&) = delete;
  replica_loop& operator=(const replica_loop&) = delete;

  result<void> submit(const submission& request) {
    auto taken = sched.submit(request, now);
    if (taken) {
      const auto priority = config.policy == scheduling_policy::priority ? request.priority : 0;
      // What was begun elsewhere goes before what never ran.
      const auto late = request.delivered.empty() ? std::uint64_t{1} << 62 : 0;
      turns_[request.id] = {priority, late + ++arrivals_};
      saved_turns_.erase(request.id);
    }
    settle();
    return taken;
  }

  void cancel_hub(hub_id hub) {
    sched.cancel_hub(hub, now);
    settle();
  }

  void cancel(request_id id) {
    sched.cancel(id, finish_reason::abort, now);
    settle();
  }

  void expire() {
    sched.expire(now);
    settle();
    const auto next = sched.next_deadline();
    TROUPE_PROMISE(!next || *next > now);
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
    settle();
    return true;
  }

  bool step_plan() {
    auto step = sched.plan(now);
    if (step) {
      TROUPE_PROMISE(value(step->id) == ++steps_);
      for (const auto id : step->removed) {
        TROUPE_PROMISE(planned_.erase(id) == 1 || lost_.erase(id) == 1,
                       "request {} is removed, but the worker cannot know it", value(id));
        remember_saved(id, *step);
      }
      for (const auto& added : step->added)
        TROUPE_PROMISE(planned_.insert(added.id).second, "request {}", value(added.id));
      check_turns(*step);
      follow_blocks(*step);
      worker.start(std::move(*step));
      TROUPE_PROMISE(worker.queued() <= config.steps_ahead);
    }
    settle();
    return step.has_value();
  }

  /// Runs the oldest step. Rows of `failing` fail alone.
  bool step_worker(const std::set<request_id>& failing = {}) {
    if (worker.queued() == 0)
      return false;
    const auto done = worker.run(failing);
    for (const auto& failed : done.failed)
      row_failed(failed.id);
    sched.step_done(done, now);
    settle();
    return true;
  }

  /// The worker is lost with all that it knew, and every request that ran there; those that wait go
  /// on.
  void fail_step(bool learns_late, const error& why) {
    worker.lose_everything(learns_late);
    const auto known = std::exchange(planned_, {});
    lost_.insert(known.begin(), known.end());
    const auto before = turns_;
    const auto waiting = sched.stats().waiting;
    sched.step_failed(why, now);
    settle();
    TROUPE_PROMISE(sched.stats().running == 0 && turns_.size() == waiting,
                   "of {} requests, {} of which waited, {} outlive the worker", before.size(),
                   waiting, turns_.size());
    for (const auto& [id, when] : before)
      TROUPE_PROMISE(turns_.contains(id) || known.contains(id), "request {} never ran", value(id));
    stale_step_ = step_id{steps_};
  }

  /// The answer to a step that went down with an earlier one arrives late, and changes nothing.
  void hear_stale_step() {
    const auto before = turns_.size();
    sched.step_done({.id = stale_step_, .tokens = {}, .failed = {}, .timings = {}}, now);
    sched.step_failed(stale_step_, {errc::internal, "the device is lost"}, now);
    settle();
    TROUPE_PROMISE(turns_.size() == before);
  }

  /// Takes what the scheduler wants sent, after any event.
  void settle() {
    auto actions = sched.take_actions();
    for (auto& done : actions.commits) {
      for (const auto& filled : done.blocks)
        TROUPE_PROMISE(worker.holds(filled.block, filled.tokens),
                       "block {} is committed before it holds its tokens", value(filled.block));
      to_pool.emplace_back(std::move(done));
    }
    for (auto& given : actions.releases) {
      for (const auto& entry : given.blocks)
        TROUPE_PROMISE(references_.at(value(entry.block))-- > 0,
                       "block {} is released, but it is the pool's", value(entry.block));
      to_pool.emplace_back(std::move(given));
    }
    for (auto& ask : actions.admits)
      to_pool.emplace_back(std::move(ask));
    if (actions.want)
      to_pool.emplace_back(*actions.want);
    std::set<hub_id> hubs;
    for (const auto& [hub, batch] : actions.tokens) {
      TROUPE_PROMISE(hubs.insert(hub).second, "two batches for hub {}", value(hub));
      for (const auto& chunk : batch) {
        TROUPE_PROMISE(turns_.contains(chunk.request), "request {} has ended or never was here",
                       value(chunk.request));
        if (chunk.finish != finish_reason::none)
          turns_.erase(chunk.request);
        receive(hub, chunk);
      }
    }
    check_account();
    for (const auto& timing : sched.take_finished())
      TROUPE_PROMISE(timing.finish != finish_reason::none);
  }

  /// No message is on its way and nobody is served.
  [[nodiscard]] bool quiet() const { return sched.idle() && to_pool.empty() && to_sched.empty(); }
  [[nodiscard]] std::size_t requests() const { return turns_.size(); }
  [[nodiscard]] std::vector<request_id> served() const {
    std::vector<request_id> out;
    for (const auto& [id, when] : turns_)
      out.push_back(id);
    return out;
  }

  /// At the end every block is at home.
  void check_home() {
    TROUPE_PROMISE(quiet());
    TROUPE_PROMISE(pool.stats().used == 0, "{} blocks are not at home: {} in the scheduler",
                   pool.stats().used, sched.stats().blocks_used);
    sched.return_account();
    settle();
    while (step_kv() || step_answer()) {
    }
    TROUPE_PROMISE(turns_.empty());
    TROUPE_PROMISE(sched.stats().blocks_used == 0);
    TROUPE_PROMISE(sched.stats().host_blocks_used == 0 && sched.stats().swapped == 0);
    TROUPE_PROMISE(pool.stats().used == 0);
    TROUPE_PROMISE(std::ranges::all_of(references_, [](auto n) { return n == 0; }));
  }

  scheduler_config config;
  time_point now{};
  scheduler sched;
  block_pool pool;
  fake_worker worker;
  std::deque<to_kv> to_pool;
  std::deque<from_kv> to_sched;

protected:
  using turn = std::pair<std::int32_t, std::uint64_t>;

  virtual void receive(hub_id hub, const token_chunk& chunk) = 0;
  virtual void row_failed(request_id) {}

private:
  void count_references(const std::vector<block_id>& blocks) {
    for (const auto block : blocks)
      ++references_.at(value(block));
  }

  /// Nobody computes on a block that the pool gives away.
  void check_granted(const std::vector<block_id>& blocks) {
    for (const auto block : blocks)
      TROUPE_PROMISE(!worker.uses(block), "block {} is granted while a step uses it", value(block));
  }

  /// Who is saved waits before all that were not, in the order in which places were given up.
  void remember_saved(request_id id, const step_batch& step) {
    const auto table = tables_.extract(id);
    const auto is_saved = [&](block_id block) {
      return std::ranges::find(step.saved, block, &block_copy::block) != step.saved.end();
    };
    if (turns_.contains(id) && config.policy == scheduling_policy::fcfs && !table.empty() &&
        std::ranges::all_of(table.mapped(), is_saved))
      saved_turns_[id] = {0, (std::uint64_t{1} << 61) + ++saves_};
  }

  void follow_blocks(const step_batch& step) {
    for (const auto& added : step.added) {
      tables_[added.id] = added.blocks;
      saved_turns_.erase(added.id);
    }
    for (const auto& row : step.rows) {
      auto& table = tables_[row.id];
      table.insert(table.end(), row.new_blocks.begin(), row.new_blocks.end());
    }
  }

  turn turn_of(request_id id) const {
    const auto saved = saved_turns_.find(id);
    return saved == saved_turns_.end() ? turns_.at(id) : saved->second;
  }

  /// Nobody is taken from the queue before one whose turn is earlier.
  void check_turns(const step_batch& step) {
    for (const auto& added : step.added) {
      const auto mine = turn_of(added.id);
      for (const auto& [id, submitted] : turns_)
        TROUPE_PROMISE(planned_.contains(id) || turn_of(id) > mine, "request {} passes request {}",
                       value(added.id), value(id));
    }
  }

  void check_account() {
    const auto mine = std::ranges::count_if(references_, [](auto n) { return n > 0; });
    const auto account = static_cast<std::uint32_t>(mine) - sched.stats().blocks_used;
    // What comes back from host memory comes in one step.
    const auto step = config.num_host_blocks > 0
                          ? config.max_model_len
                          : std::min(config.max_num_batched_tokens, config.max_model_len);
    const auto one = (step + config.block_size - 1) / config.block_size + 1;
    TROUPE_PROMISE(account <= std::min(config.num_blocks, std::max(config.num_blocks / 8, one)));
  }

  std::uint64_t steps_ = 0;
  std::uint64_t arrivals_ = 0;
  /// The turn of every request that the scheduler serves.
  std::map<request_id, turn> turns_;
  /// The block tables that the worker knows, and the turns of who was saved.
  std::map<request_id, std::vector<block_id>> tables_;
  std::map<request_id, turn> saved_turns_;
  std::uint64_t saves_ = 0;
  /// Sequences that the worker will know when all planned steps ran.
  std::set<request_id> planned_;
  /// Sequences that a lost worker may or may not know.
  std::set<request_id> lost_;
  step_id stale_step_{};
  /// References that the kv_manager counts for the scheduler, by the messages seen.
  std::vector<std::uint32_t> references_;
};

} // namespace troupe::engine::test
