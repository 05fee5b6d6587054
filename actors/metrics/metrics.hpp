#pragma once

#include "engine/request/step.hpp"
#include "engine/sched/scheduler.hpp"
#include "troupe/base/clock.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace troupe::actors {

/// What is known of one replica once its executor is loaded; ends in vllm:cache_config_info and in
/// the buckets of the token histograms.
struct replica_facts {
  std::uint32_t block_size = 0;
  std::uint32_t num_blocks = 0;
  std::uint32_t num_host_blocks = 0;
  std::uint32_t max_model_len = 0;
  std::string cache_dtype{};
  bool enable_prefix_caching = true;
};

/// An inference request that ended well.
struct inference_done {
  /// Until it was taken, and from there to its end.
  duration queue{0};
  duration infer{0};
  /// The inferences that it asked for.
  std::uint32_t batch_size = 1;
};

/// What a router did since it was last asked, and what it knows now.
struct router_numbers {
  std::string_view policy;
  std::uint64_t decisions = 0;
  std::uint64_t index_gaps = 0;
  std::uint64_t snapshots = 0;
  std::uint64_t index_blocks = 0;
  std::uint64_t index_bytes = 0;
  std::uint64_t parked = 0;
};

/// Every number that one process shows on /metrics, in Prometheus' text format.
///
/// `vllm:*` carries vLLM's names, labels (model_name, engine) and buckets, so that dashboards and
/// gateways made for vLLM work; `troupe:*` is about the actors. `engine` is the replica as a
/// decimal number; the latencies that only a front process can see carry engine "0". Thread-safe;
/// an update takes about a microsecond and never blocks on a scrape for longer than one metric's
/// copy.
class metrics {
public:
  metrics();
  ~metrics();
  metrics(const metrics&) = delete;
  metrics& operator=(const metrics&) = delete;

  /// The text exposition, version 0.0.4.
  [[nodiscard]] std::string render() const;

  /// From now on the numbers of this replica are taken, of which no series is made before the
  /// first. Again changes nothing.
  void open_replica(std::string_view model, std::string_view engine);
  /// The replica is no more: its series go, and what is told of it late is dropped.
  void close_replica(std::string_view model, std::string_view engine);
  /// Once per load of a replica, before its first numbers.
  void set_replica(std::string_view model, std::string_view engine, const replica_facts& facts);
  /// Gauges as they are; the cumulative counters of `stats` are exported by their differences to
  /// the last call, and a counter that went back (a restarted scheduler) counts from zero again.
  void set_scheduler(std::string_view model, std::string_view engine,
                     const engine::scheduler_stats& stats);
  /// A request ended in the scheduler.
  void observe_request(std::string_view model, std::string_view engine,
                       const engine::request_timing& timing);
  /// A step came back; `tokens` were computed in it, prompt and generated ones together.
  void observe_step(std::string_view model, std::string_view engine,
                    const engine::step_timings& timings, std::uint32_t tokens);

  /// From the arrival at the edge to the first token.
  void observe_first_token(std::string_view model, double seconds);
  /// Between two parts of one answer.
  void observe_inter_token(std::string_view model, double seconds);
  /// From the arrival at the edge to the last token.
  void observe_e2e(std::string_view model, double seconds);
  /// The max_tokens that a client asked for.
  void observe_max_tokens(std::string_view model, std::uint32_t max_tokens);

  /// Shows Triton's nv_inference_* of a model that is served, at zero until something is asked.
  void open_inference(std::string_view model, std::string_view version);
  /// Triton's nv_inference_*: requests that no replica has taken yet go up and down; one that ended
  /// well took so long until a replica took it, and from there; one that failed did so for a reason
  /// of Triton's (REJECTED, CANCELED, BACKEND, OTHER); requests that were put together are one
  /// execution.
  void inference_pending(std::string_view model, std::string_view version, int change);
  void observe_inference(std::string_view model, std::string_view version,
                         const inference_done& done);
  void inference_executed(std::string_view model, std::string_view version);
  void inference_failed(std::string_view model, std::string_view version, std::string_view reason);

  /// What a backend of people's own counts and measures, by a name of its choice. Of each model's
  /// names the first 64 are kept.
  void backend_count(std::string_view model, std::string_view metric, double by);
  void backend_measure(std::string_view model, std::string_view metric, double value);

  /// An actor of this kind ("scheduler", "worker", ...) died and was started again.
  void actor_restarted(std::string_view kind);
  /// Streams that went on at another replica since the last call, by whether their tokens are the
  /// very ones that they would have been, and requests refused because replicas died under them.
  void count_migrations(std::uint64_t exact, std::uint64_t inexact);
  void count_poisoned(std::uint64_t requests);
  void update_router(const router_numbers& numbers);
  /// A request was given to a replica: from its arrival at the router, hashing included.
  void observe_decision(std::string_view policy, double seconds);
  void set_mailbox(std::string_view actor, std::uint64_t depth);

  void http_connections(std::uint64_t open);
  /// `path` is a route of the edge, never what a client sent, so that labels stay few.
  void http_request(std::string_view path, unsigned status);
  void slow_reader_cut();

private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

} // namespace troupe::actors
