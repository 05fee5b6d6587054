#pragma once

#include "actors/metrics/buckets.hpp"
#include "actors/metrics/metrics.hpp"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

/// The series behind metrics, by what they belong to. Of metrics.cpp alone.

namespace troupe::actors {

using prometheus::Counter;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::Labels;
using prometheus::Registry;

/// Until a replica says its limit, token counts go this far.
inline constexpr std::uint32_t default_max_model_len = 131072;

inline double seconds(duration d) { return std::chrono::duration<double>(d).count(); }

/// How to take each of some metrics out of the registry.
using removals = std::map<const void*, std::function<void()>>;

/// Makes the metrics of one set of labels by name.
class maker {
public:
  /// @param made learns of all that is made, by whoever takes it out again
  maker(Registry& registry, Labels labels, removals* made = nullptr)
      : registry_{registry}, labels_{std::move(labels)}, made_{made} {}

  Gauge& gauge(const char* name, const char* help, const Labels& more = {}) {
    auto& family = prometheus::BuildGauge().Name(name).Help(help).Register(registry_);
    return note(family, family.Add(with(more)));
  }
  Counter& counter(const char* name, const char* help, const Labels& more = {}) {
    auto& family = prometheus::BuildCounter().Name(name).Help(help).Register(registry_);
    return note(family, family.Add(with(more)));
  }
  Histogram& histogram(const char* name, const char* help, const std::vector<double>& bounds,
                       const Labels& more = {}) {
    auto& family = prometheus::BuildHistogram().Name(name).Help(help).Register(registry_);
    return note(family, family.Add(with(more), bounds));
  }

private:
  template <class T>
  T& note(prometheus::Family<T>& family, T& metric) {
    if (made_ != nullptr)
      made_->try_emplace(&metric, [&family, &metric] { family.Remove(&metric); });
    return metric;
  }

  [[nodiscard]] Labels with(const Labels& more) const {
    auto all = labels_;
    all.insert(more.begin(), more.end());
    return all;
  }

  Registry& registry_;
  Labels labels_;
  removals* made_;
};

/// A cumulative number of somebody else, exported by its differences.
struct follower {
  explicit follower(Counter& c) : counter{c} {}

  std::uint64_t update(std::uint64_t now) {
    const auto step = now >= last ? now - last : now;
    last = now;
    if (step > 0)
      counter.Increment(static_cast<double>(step));
    return step;
  }

  Counter& counter;
  std::uint64_t last = 0;
};

/// What comes from the scheduler of one replica: numbers and counters.
struct scheduler_series {
  explicit scheduler_series(maker m)
      : running{m.gauge("vllm:num_requests_running", "Requests in the batch of the running step.")},
        waiting{m.gauge("vllm:num_requests_waiting", "Requests that wait for their first step.")},
        waiting_capacity{m.gauge("vllm:num_requests_waiting_by_reason",
                                 "Waiting requests by what they wait for.",
                                 {{"reason", "capacity"}})},
        kv_usage{m.gauge("vllm:kv_cache_usage_perc", "Share of KV blocks in use; 1 is all.")},
        kv_usage_old{m.gauge("vllm:gpu_cache_usage_perc",
                             "Old name of vllm:kv_cache_usage_perc, for dashboards that use it.")},
        swapped{m.gauge("vllm:num_requests_swapped",
                        "Waiting requests whose KV blocks lie in host memory.")},
        host_usage{m.gauge("vllm:cpu_cache_usage_perc",
                           "Share of the places for KV blocks in host memory in use; 1 is all.")},
        prompt{m.counter("vllm:prompt_tokens_total", "Prompt tokens, cached ones included.")},
        cached{m.counter("vllm:prompt_tokens_cached_total",
                         "Prompt tokens whose KV was found in the prefix cache.")},
        computed{m.counter("vllm:prompt_tokens_by_source_total",
                           "Prompt tokens by origin of their KV.", {{"source", "local_compute"}})},
        hit{m.counter("vllm:prompt_tokens_by_source_total", "Prompt tokens by origin of their KV.",
                      {{"source", "local_cache_hit"}})},
        generated{m.counter("vllm:generation_tokens_total", "Tokens generated.")},
        preemptions{m.counter("vllm:num_preemptions_total",
                              "Requests that gave their blocks back, to go on later.")},
        saved{m.counter("troupe:kv_blocks_saved_total", "KV blocks copied to host memory.")},
        restored{m.counter("troupe:kv_blocks_restored_total", "KV blocks copied back from there.")},
        recomputed{m.counter("troupe:recomputed_tokens_total",
                             "Tokens computed again after a preemption or a failure.")},
        queries{
            m.counter("vllm:prefix_cache_queries_total", "Tokens looked up in the prefix cache.")},
        hits{m.counter("vllm:prefix_cache_hits_total", "Tokens found in the prefix cache.")} {}

  void update(const engine::scheduler_stats& s) {
    running.Set(s.running);
    waiting.Set(s.waiting);
    waiting_capacity.Set(s.waiting);
    const auto usage = s.blocks_total == 0 ? 0.0 : double(s.blocks_used) / s.blocks_total;
    kv_usage.Set(usage);
    kv_usage_old.Set(usage);
    swapped.Set(s.swapped);
    host_usage.Set(s.host_blocks_total == 0 ? 0.0
                                            : double(s.host_blocks_used) / s.host_blocks_total);
    const auto all = prompt.update(s.prompt_tokens);
    const auto found = cached.update(s.prompt_tokens_cached);
    hit.Increment(static_cast<double>(found));
    computed.Increment(static_cast<double>(all > found ? all - found : 0));
    generated.update(s.generation_tokens);
    preemptions.update(s.preemptions);
    saved.update(s.blocks_saved);
    restored.update(s.blocks_restored);
    recomputed.update(s.tokens_recomputed);
    queries.update(s.prefix_cache_queries);
    hits.update(s.prefix_cache_hits);
  }

  Gauge &running, &waiting, &waiting_capacity, &kv_usage, &kv_usage_old, &swapped, &host_usage;
  follower prompt, cached;
  Counter &computed, &hit;
  follower generated, preemptions, saved, restored, recomputed, queries, hits;
};

/// What one ended request and one step of a replica add.
struct request_series {
  request_series(maker m, std::uint32_t max_model_len)
      : queue{m.histogram("vllm:request_queue_time_seconds", "From arrival to the first step.",
                          request_buckets())},
        inference{m.histogram("vllm:request_inference_time_seconds",
                              "From the first step to the end.", request_buckets())},
        prefill{m.histogram("vllm:request_prefill_time_seconds",
                            "From the first step to the first token.", request_buckets())},
        decode{m.histogram("vllm:request_decode_time_seconds", "From the first token to the last.",
                           request_buckets())},
        per_token{m.histogram("vllm:request_time_per_output_token_seconds",
                              "Decode time of a request by its tokens after the first.",
                              inter_token_buckets())},
        prompt{m.histogram("vllm:request_prompt_tokens", "Prompt tokens of a request.",
                           token_count_buckets(max_model_len))},
        generated{m.histogram("vllm:request_generation_tokens", "Tokens generated for a request.",
                              token_count_buckets(max_model_len))},
        iteration{m.histogram("vllm:iteration_tokens_total", "Tokens computed in one step.",
                              iteration_buckets())},
        phase_prepare{phase(m, "prepare")}, phase_forward{phase(m, "forward")},
        phase_sample{phase(m, "sample")}, phase_idle{phase(m, "idle")} {}

  static Histogram& phase(maker& m, const char* name) {
    return m.histogram("troupe:step_phase_seconds", "Where the time of a step went.",
                       phase_buckets(), {{"phase", name}});
  }

  void add(const engine::request_timing& t) {
    queue.Observe(seconds(t.queued));
    prompt.Observe(t.prompt_tokens);
    if (t.generated_tokens == 0)
      return;
    inference.Observe(seconds(t.prefill + t.decode));
    prefill.Observe(seconds(t.prefill));
    decode.Observe(seconds(t.decode));
    generated.Observe(t.generated_tokens);
    if (t.generated_tokens > 1)
      per_token.Observe(seconds(t.decode) / (t.generated_tokens - 1));
  }

  Histogram &queue, &inference, &prefill, &decode, &per_token, &prompt, &generated, &iteration;
  Histogram &phase_prepare, &phase_forward, &phase_sample, &phase_idle;
};

/// One replica of one model. Its end takes all that it shows away.
struct replica_series {
  replica_series(Registry& registry, Labels labels, std::uint32_t max_model_len)
      : made{registry, std::move(labels), &all}, sched{made}, requests{made, max_model_len} {}
  ~replica_series() {
    for (const auto& [metric, remove] : all)
      remove();
  }
  replica_series(const replica_series&) = delete;
  replica_series& operator=(const replica_series&) = delete;

  removals all;
  maker made;
  scheduler_series sched;
  request_series requests;
};

/// What the front process sees of one model.
struct front_series {
  front_series(maker m, std::uint32_t max_model_len)
      : first{m.histogram("vllm:time_to_first_token_seconds",
                          "From the arrival of a request to its first token.",
                          first_token_buckets())},
        inter{m.histogram("vllm:inter_token_latency_seconds", "Between two parts of an answer.",
                          inter_token_buckets())},
        inter_old{m.histogram("vllm:time_per_output_token_seconds",
                              "Old name of vllm:inter_token_latency_seconds, for dashboards that "
                              "use it.",
                              inter_token_buckets())},
        e2e{m.histogram("vllm:e2e_request_latency_seconds",
                        "From the arrival of a request to its last token.", request_buckets())},
        max_tokens{m.histogram("vllm:request_params_max_tokens", "max_tokens that clients ask for.",
                               token_count_buckets(max_model_len))},
        n{m.histogram("vllm:request_params_n", "Answers to a request; one is what is served.",
                      answer_buckets())} {}

  Histogram &first, &inter, &inter_old, &e2e, &max_tokens, &n;
};

/// What backends of people's own count and measure.
class backend_series {
public:
  /// Null for a name too many.
  Counter* counter(Registry& registry, std::string_view model, std::string_view metric) {
    const auto at = find(counters_, model, metric);
    if (at != nullptr && *at == nullptr)
      *at = &maker{registry, labels(model, metric)}.counter(
          "troupe:backend_total", "What backends of people's own count, by a name of theirs.");
    return at == nullptr ? nullptr : *at;
  }
  Gauge* gauge(Registry& registry, std::string_view model, std::string_view metric) {
    const auto at = find(gauges_, model, metric);
    if (at != nullptr && *at == nullptr)
      *at = &maker{registry, labels(model, metric)}.gauge(
          "troupe:backend_value", "What backends of people's own measure, by a name of theirs.");
    return at == nullptr ? nullptr : *at;
  }

private:
  static constexpr std::size_t most_names = 64;

  template <class T>
  using names = std::map<std::string, std::map<std::string, T*>>;

  static Labels labels(std::string_view model, std::string_view metric) {
    return {{"model", std::string{model}}, {"metric", std::string{metric}}};
  }

  template <class T>
  static T** find(names<T>& all, std::string_view model, std::string_view metric) {
    auto& of = all[std::string{model}];
    const std::string name{metric};
    const bool full = of.size() >= most_names && !of.contains(name);
    return full ? nullptr : &of[name];
  }

  names<Counter> counters_;
  names<Gauge> gauges_;
};

} // namespace troupe::actors
