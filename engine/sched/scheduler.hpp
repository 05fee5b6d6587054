#pragma once

#include "engine/kv/messages.hpp"
#include "engine/request/step.hpp"
#include "troupe/base/clock.hpp"
#include "troupe/base/error.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace troupe::engine {

enum class scheduling_policy : std::uint8_t { fcfs, priority };

/// The limits of one replica's scheduler, in vLLM's names.
struct scheduler_config {
  std::uint32_t block_size = 16;
  /// Blocks in the pool of the kv_manager.
  std::uint32_t num_blocks = 0;
  /// Places in host memory for blocks of preempted sequences; 0: these are computed anew.
  std::uint32_t num_host_blocks = 0;
  std::uint32_t max_model_len = 0;
  /// Tokens outside [0, vocab_size) are refused at submission; 0: only negative ones are.
  std::uint32_t vocab_size = 0;
  std::uint32_t max_num_seqs = 64;
  std::uint32_t max_num_batched_tokens = 2048;
  /// 0: a prompt may fill the whole budget of a step.
  std::uint32_t long_prefill_token_threshold = 0;
  /// Where answers run, prompts are spread over so many steps at most; 1 spreads none. What waits
  /// longer makes the answers that run quicker, and leaves fewer of them for a step to go on with.
  std::uint32_t spread_steps = 64;
  /// Tokens of several prompts that a step has at most where nothing is a backlog. A GPU computes
  /// so many hardly slower than more.
  std::uint32_t prompt_step_tokens = 2048;
  /// A sequence that was saved in host memory waits for so many steps while others run; then it
  /// takes the place of one that has run for as many, or of several, where nobody waits who never
  /// ran. 0: it waits until there is room. A GPU copies one there and back beside its steps.
  std::uint32_t turn_steps = 64;
  /// Waiting requests beyond this are answered `busy`.
  std::uint32_t max_waiting = 1024;
  bool enable_prefix_caching = true;
  bool enable_chunked_prefill = true;
  scheduling_policy policy = scheduling_policy::fcfs;
  /// Steps that may be planned before the oldest of them is done.
  std::uint32_t steps_ahead = 2;
  /// Keys the block hashes, so that no client can aim a collision; from the cluster's secret.
  std::uint64_t hash_key = 0;
};

/// What the scheduler wants sent, in the order of the vectors.
struct scheduler_actions {
  std::vector<kv_commit> commits;
  std::vector<kv_release> releases;
  std::vector<kv_admit> admits;
  std::optional<kv_want> want;
  /// Chunks for each front's hub, at most one batch per hub and call.
  std::vector<std::pair<hub_id, std::vector<token_chunk>>> tokens;
};

/// What happened to one request, for metrics. Times are durations since the moment before it.
struct request_timing {
  request_id id{};
  finish_reason finish = finish_reason::none;
  std::uint32_t prompt_tokens = 0;
  std::uint32_t generated_tokens = 0;
  std::uint32_t cached_tokens = 0;
  duration queued{};
  duration prefill{};
  duration decode{};
};

/// A snapshot and the counters of one replica.
struct scheduler_stats {
  std::uint32_t running = 0;
  std::uint32_t waiting = 0;
  std::uint32_t steps_in_flight = 0;
  /// Blocks that sequences hold and blocks of the pool.
  std::uint32_t blocks_used = 0;
  std::uint32_t blocks_total = 0;
  /// Waiting requests whose blocks lie in host memory; places there that are taken, and all.
  std::uint32_t swapped = 0;
  std::uint32_t host_blocks_used = 0;
  std::uint32_t host_blocks_total = 0;
  std::uint64_t steps = 0;
  std::uint64_t prompt_tokens = 0;
  std::uint64_t prompt_tokens_cached = 0;
  std::uint64_t generation_tokens = 0;
  std::uint64_t preemptions = 0;
  /// Blocks copied to host memory and back, and positions that were computed a second time.
  std::uint64_t blocks_saved = 0;
  std::uint64_t blocks_restored = 0;
  std::uint64_t tokens_recomputed = 0;
  std::uint64_t prefix_cache_queries = 0;
  std::uint64_t prefix_cache_hits = 0;
  /// Tokens of the waiting requests.
  std::uint64_t waiting_tokens = 0;
};

/// The scheduler of one replica as a pure state machine: events in, actions out, time passed in.
///
/// One token budget per step and no phases: every request gets tokens so that what is computed
/// catches up with what is known. Chunked prefill, preemption to host memory or by recompute,
/// prefix caching. Steps are planned ahead of the device: a position whose token is still being
/// sampled is scheduled as a placeholder.
/// @source the semantics of vLLM's V1 scheduler
class scheduler {
public:
  explicit scheduler(scheduler_config config);
  ~scheduler();
  scheduler(const scheduler&) = delete;
  scheduler& operator=(const scheduler&) = delete;

  /// Takes a request into the waiting queue.
  /// @errors invalid_argument: empty prompt, or prompt and answer cannot fit max_model_len (the
  /// note
  ///         says both numbers); pool_exhausted: it could never fit the pool, even alone; busy: the
  ///         queue is full; conflict: the id is known
  [[nodiscard]] result<void> submit(submission request, time_point now);
  /// Ends a request; unknown ids are ignored. Its blocks go back at the end of the steps in flight.
  void cancel(request_id id, finish_reason reason, time_point now);
  /// Ends every request whose sink is at a hub that is gone.
  void cancel_hub(hub_id hub, time_point now);
  /// The kv_manager's answers.
  void admitted(const kv_admitted& answer, time_point now);
  void granted(const kv_grant& answer);
  /// Plans the next step; nothing when enough steps are in flight or nothing can be computed now. A
  /// step without rows saves blocks of preempted sequences, so that others may have them.
  [[nodiscard]] std::optional<step_batch> plan(time_point now);
  /// A step came back. Steps come back in order.
  void step_done(const step_result& done, time_point now);
  /// A step failed as a whole, and with it all steps in flight and every sequence that the executor
  /// knew: each running request ends with finish_reason::error and `why`, and those that wait start
  /// anew. Nothing is committed, all blocks are released, and the prefix index is emptied
  /// (kv_commit::contents_lost).
  void step_failed(const error& why, time_point now);
  /// The same for an error that names its step: ignored when that step went down with an earlier
  /// one, so that each of several steps in flight may report the same failure.
  void step_failed(step_id step, const error& why, time_point now);
  /// Ends requests whose deadline has passed.
  void expire(time_point now);
  /// The earliest deadline of any request, for a timer.
  [[nodiscard]] std::optional<time_point> next_deadline() const;

  /// Hands over what is to be sent since the last call.
  [[nodiscard]] scheduler_actions take_actions();
  /// Hands over the requests that ended since the last call.
  [[nodiscard]] std::vector<request_timing> take_finished();
  [[nodiscard]] scheduler_stats stats() const;
  /// True when no request is known and no step is in flight: then it holds no block but its
  /// account.
  [[nodiscard]] bool idle() const;
  /// Gives the whole account back; for drain, so that all blocks are home.
  void return_account();

private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

} // namespace troupe::engine
