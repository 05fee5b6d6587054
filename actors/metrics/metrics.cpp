#include "actors/metrics/metrics.hpp"

#include "actors/metrics/buckets.hpp"
#include "actors/metrics/inference_series.hpp"
#include "actors/metrics/router_series.hpp"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <chrono>
#include <map>
#include <mutex>
#include <sstream>
#include <utility>

namespace troupe::actors {

namespace {

using prometheus::Counter;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::Labels;
using prometheus::Registry;

constexpr std::uint32_t default_max_model_len = 131072; // until a replica says its limit

double seconds(duration d) { return std::chrono::duration<double>(d).count(); }

/// Makes the metrics of one set of labels by name.
class maker {
public:
  maker(Registry& registry, Labels labels) : registry_{registry}, labels_{std::move(labels)} {}

  Gauge& gauge(const char* name, const char* help, const Labels& more = {}) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry_).Add(with(more));
  }
  Counter& counter(const char* name, const char* help, const Labels& more = {}) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry_).Add(with(more));
  }
  Histogram& histogram(const char* name, const char* help, const std::vector<double>& bounds,
                       const Labels& more = {}) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry_).Add(with(more),
                                                                                      bounds);
  }

private:
  [[nodiscard]] Labels with(const Labels& more) const {
    auto all = labels_;
    all.insert(more.begin(), more.end());
    return all;
  }

  Registry& registry_;
  Labels labels_;
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
        prompt{m.counter("vllm:prompt_tokens_total", "Prompt tokens, cached ones included.")},
        cached{m.counter("vllm:prompt_tokens_cached_total",
                         "Prompt tokens whose KV was found in the prefix cache.")},
        computed{m.counter("vllm:prompt_tokens_by_source_total",
                           "Prompt tokens by origin of their KV.", {{"source", "local_compute"}})},
        hit{m.counter("vllm:prompt_tokens_by_source_total", "Prompt tokens by origin of their KV.",
                      {{"source", "local_cache_hit"}})},
        generated{m.counter("vllm:generation_tokens_total", "Tokens generated.")},
        preemptions{m.counter("vllm:num_preemptions_total",
                              "Requests that gave their blocks back and start over.")},
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
    const auto all = prompt.update(s.prompt_tokens);
    const auto found = cached.update(s.prompt_tokens_cached);
    hit.Increment(static_cast<double>(found));
    computed.Increment(static_cast<double>(all > found ? all - found : 0));
    generated.update(s.generation_tokens);
    preemptions.update(s.preemptions);
    queries.update(s.prefix_cache_queries);
    hits.update(s.prefix_cache_hits);
  }

  Gauge &running, &waiting, &waiting_capacity, &kv_usage, &kv_usage_old;
  follower prompt, cached;
  Counter &computed, &hit;
  follower generated, preemptions, queries, hits;
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

/// One replica of one model.
struct replica_series {
  replica_series(Registry& registry, Labels labels, std::uint32_t max_model_len)
      : made{registry, std::move(labels)}, sched{made}, requests{made, max_model_len} {}

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
        e2e{m.histogram("vllm:e2e_request_latency_seconds",
                        "From the arrival of a request to its last token.", request_buckets())},
        max_tokens{m.histogram("vllm:request_params_max_tokens", "max_tokens that clients ask for.",
                               token_count_buckets(max_model_len))} {}

  Histogram &first, &inter, &e2e, &max_tokens;
};

} // namespace

struct metrics::impl {
  using key = std::pair<std::string, std::string>;

  static Labels labels(std::string_view model, std::string_view engine) {
    return {{"model_name", std::string{model}}, {"engine", std::string{engine}}};
  }

  std::uint32_t max_model_len(const std::string& model) const {
    const auto known = limits.find(model);
    return known == limits.end() ? default_max_model_len : known->second;
  }

  replica_series& replica(std::string_view model, std::string_view engine) {
    const key name{model, engine};
    const auto known = replicas.find(name);
    if (known != replicas.end())
      return *known->second;
    auto made = std::make_unique<replica_series>(*registry, labels(model, engine),
                                                 max_model_len(name.first));
    return *replicas.emplace(name, std::move(made)).first->second;
  }

  front_series& front(std::string_view model) {
    const std::string name{model};
    const auto known = fronts.find(name);
    if (known != fronts.end())
      return *known->second;
    auto made =
        std::make_unique<front_series>(maker{*registry, labels(model, "0")}, max_model_len(name));
    return *fronts.emplace(name, std::move(made)).first->second;
  }

  maker process() { return maker{*registry, {}}; }

  mutable std::mutex mutex;
  std::shared_ptr<Registry> registry = std::make_shared<Registry>();
  std::map<key, std::unique_ptr<replica_series>> replicas;
  std::map<std::string, std::unique_ptr<front_series>> fronts;
  std::map<std::string, std::uint32_t> limits;
  inference_series inferences{*registry};
  router_series router{*registry};
};

metrics::metrics() : impl_{std::make_unique<impl>()} {
  // Series that a dashboard should see at zero rather than not at all.
  auto m = impl_->process();
  m.gauge("troupe:http_connections", "Open connections of the HTTP edge.");
  m.counter("troupe:slow_readers_cut_total", "Clients cut off because they read nothing.");
  impl_->router.migrated(0, 0);
}

metrics::~metrics() = default;

std::string metrics::render() const {
  std::vector<prometheus::MetricFamily> families;
  {
    const std::lock_guard lock{impl_->mutex};
    families = impl_->registry->Collect();
  }
  std::ostringstream out;
  prometheus::TextSerializer{}.Serialize(out, families);
  return std::move(out).str();
}

void metrics::set_replica(std::string_view model, std::string_view engine,
                          const replica_facts& facts) {
  const std::lock_guard lock{impl_->mutex};
  if (facts.max_model_len > 0)
    impl_->limits[std::string{model}] = facts.max_model_len;
  auto& series = impl_->replica(model, engine);
  series.made
      .gauge("vllm:cache_config_info", "The configuration of the KV cache, in labels.",
             {{"block_size", std::to_string(facts.block_size)},
              {"num_gpu_blocks", std::to_string(facts.num_blocks)},
              {"cache_dtype", facts.cache_dtype.empty() ? "auto" : facts.cache_dtype},
              {"enable_prefix_caching", facts.enable_prefix_caching ? "True" : "False"}})
      .Set(1);
}

void metrics::set_scheduler(std::string_view model, std::string_view engine,
                            const engine::scheduler_stats& stats) {
  const std::lock_guard lock{impl_->mutex};
  impl_->replica(model, engine).sched.update(stats);
}

void metrics::observe_request(std::string_view model, std::string_view engine,
                              const engine::request_timing& timing) {
  const std::lock_guard lock{impl_->mutex};
  auto& series = impl_->replica(model, engine);
  series.requests.add(timing);
  series.made
      .counter("vllm:request_success_total", "Requests that ended, by their finish reason.",
               {{"finished_reason", std::string{engine::to_string(timing.finish)}}})
      .Increment();
}

void metrics::observe_step(std::string_view model, std::string_view engine,
                           const engine::step_timings& timings, std::uint32_t tokens) {
  const std::lock_guard lock{impl_->mutex};
  auto& series = impl_->replica(model, engine).requests;
  series.iteration.Observe(tokens);
  series.phase_prepare.Observe(seconds(timings.prepare));
  series.phase_forward.Observe(seconds(timings.forward));
  series.phase_sample.Observe(seconds(timings.sample));
  series.phase_idle.Observe(seconds(timings.idle));
}

void metrics::observe_first_token(std::string_view model, double value) {
  const std::lock_guard lock{impl_->mutex};
  impl_->front(model).first.Observe(value);
}

void metrics::observe_inter_token(std::string_view model, double value) {
  const std::lock_guard lock{impl_->mutex};
  impl_->front(model).inter.Observe(value);
}

void metrics::observe_e2e(std::string_view model, double value) {
  const std::lock_guard lock{impl_->mutex};
  impl_->front(model).e2e.Observe(value);
}

void metrics::observe_max_tokens(std::string_view model, std::uint32_t max_tokens) {
  const std::lock_guard lock{impl_->mutex};
  impl_->front(model).max_tokens.Observe(max_tokens);
}

void metrics::inference_pending(std::string_view model, std::string_view version, int change) {
  const std::lock_guard lock{impl_->mutex};
  impl_->inferences.pending(model, version, change);
}

void metrics::observe_inference(std::string_view model, std::string_view version, duration queue,
                                duration infer) {
  const std::lock_guard lock{impl_->mutex};
  impl_->inferences.succeeded(model, version, queue, infer);
}

void metrics::inference_failed(std::string_view model, std::string_view version,
                               std::string_view reason) {
  const std::lock_guard lock{impl_->mutex};
  impl_->inferences.failed(model, version, reason);
}

void metrics::actor_restarted(std::string_view kind) {
  const std::lock_guard lock{impl_->mutex};
  impl_->process()
      .counter("troupe:actor_restarts_total", "Actors that died and were started again.",
               {{"actor", std::string{kind}}})
      .Increment();
}

void metrics::count_migrations(std::uint64_t exact, std::uint64_t inexact) {
  const std::lock_guard lock{impl_->mutex};
  impl_->router.migrated(exact, inexact);
}

void metrics::count_poisoned(std::uint64_t requests) {
  const std::lock_guard lock{impl_->mutex};
  impl_->router.poisoned(requests);
}

void metrics::update_router(const router_numbers& numbers) {
  const std::lock_guard lock{impl_->mutex};
  impl_->router.update(numbers);
}

void metrics::observe_decision(std::string_view policy, double value) {
  const std::lock_guard lock{impl_->mutex};
  impl_->router.decided(policy, value);
}

void metrics::set_mailbox(std::string_view actor, std::uint64_t depth) {
  const std::lock_guard lock{impl_->mutex};
  impl_->process()
      .gauge("troupe:actor_mailbox_depth", "Messages that wait in an actor's mailbox.",
             {{"actor", std::string{actor}}})
      .Set(static_cast<double>(depth));
}

void metrics::http_connections(std::uint64_t open) {
  const std::lock_guard lock{impl_->mutex};
  impl_->process()
      .gauge("troupe:http_connections", "Open connections of the HTTP edge.")
      .Set(static_cast<double>(open));
}

void metrics::http_request(std::string_view path, unsigned status) {
  const std::lock_guard lock{impl_->mutex};
  impl_->process()
      .counter("troupe:http_requests_total", "Requests that the HTTP edge answered.",
               {{"path", std::string{path}}, {"status", std::to_string(status)}})
      .Increment();
}

void metrics::slow_reader_cut() {
  const std::lock_guard lock{impl_->mutex};
  impl_->process()
      .counter("troupe:slow_readers_cut_total", "Clients cut off because they read nothing.")
      .Increment();
}

} // namespace troupe::actors
