#include "actors/metrics/metrics.hpp"

#include "actors/metrics/inference_series.hpp"
#include "actors/metrics/router_series.hpp"
#include "actors/metrics/series.hpp"

#include <prometheus/text_serializer.h>

#include <map>
#include <mutex>
#include <sstream>
#include <utility>

namespace troupe::actors {

struct metrics::impl {
  using key = std::pair<std::string, std::string>;

  static Labels labels(std::string_view model, std::string_view engine) {
    return {{"model_name", std::string{model}}, {"engine", std::string{engine}}};
  }

  std::uint32_t max_model_len(const std::string& model) const {
    const auto known = limits.find(model);
    return known == limits.end() ? default_max_model_len : known->second;
  }

  /// Null when it is not open.
  replica_series* replica(std::string_view model, std::string_view engine) {
    const auto known = replicas.find(key{model, engine});
    if (known == replicas.end())
      return nullptr;
    if (!known->second)
      known->second = std::make_unique<replica_series>(*registry, labels(model, engine),
                                                       max_model_len(known->first.first));
    return known->second.get();
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
  /// Null before the first numbers.
  std::map<key, std::unique_ptr<replica_series>> replicas;
  std::map<std::string, std::unique_ptr<front_series>> fronts;
  std::map<std::string, std::uint32_t> limits;
  inference_series inferences{*registry};
  router_series router{*registry};
  backend_series backends;
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

void metrics::open_replica(std::string_view model, std::string_view engine) {
  const std::lock_guard lock{impl_->mutex};
  impl_->replicas.try_emplace({std::string{model}, std::string{engine}});
}

void metrics::close_replica(std::string_view model, std::string_view engine) {
  const std::lock_guard lock{impl_->mutex};
  impl_->replicas.erase({std::string{model}, std::string{engine}});
}

void metrics::set_replica(std::string_view model, std::string_view engine,
                          const replica_facts& facts) {
  const std::lock_guard lock{impl_->mutex};
  if (facts.max_model_len > 0)
    impl_->limits[std::string{model}] = facts.max_model_len;
  auto* const series = impl_->replica(model, engine);
  if (series == nullptr)
    return;
  series->made
      .gauge("vllm:cache_config_info", "The configuration of the KV cache, in labels.",
             {{"block_size", std::to_string(facts.block_size)},
              {"num_gpu_blocks", std::to_string(facts.num_blocks)},
              {"num_cpu_blocks", std::to_string(facts.num_host_blocks)},
              {"cache_dtype", facts.cache_dtype.empty() ? "auto" : facts.cache_dtype},
              {"enable_prefix_caching", facts.enable_prefix_caching ? "True" : "False"}})
      .Set(1);
}

void metrics::set_scheduler(std::string_view model, std::string_view engine,
                            const engine::scheduler_stats& stats) {
  const std::lock_guard lock{impl_->mutex};
  if (auto* const series = impl_->replica(model, engine))
    series->sched.update(stats);
}

void metrics::observe_request(std::string_view model, std::string_view engine,
                              const engine::request_timing& timing) {
  const std::lock_guard lock{impl_->mutex};
  auto* const series = impl_->replica(model, engine);
  if (series == nullptr)
    return;
  series->requests.add(timing);
  series->made
      .counter("vllm:request_success_total", "Requests that ended, by their finish reason.",
               {{"finished_reason", std::string{engine::to_string(timing.finish)}}})
      .Increment();
}

void metrics::observe_step(std::string_view model, std::string_view engine,
                           const engine::step_timings& timings, std::uint32_t tokens) {
  const std::lock_guard lock{impl_->mutex};
  auto* const of = impl_->replica(model, engine);
  if (of == nullptr)
    return;
  auto& series = of->requests;
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
  auto& series = impl_->front(model);
  series.inter.Observe(value);
  series.inter_old.Observe(value);
}

void metrics::observe_e2e(std::string_view model, double value) {
  const std::lock_guard lock{impl_->mutex};
  auto& series = impl_->front(model);
  series.e2e.Observe(value);
  series.n.Observe(1);
}

void metrics::observe_max_tokens(std::string_view model, std::uint32_t max_tokens) {
  const std::lock_guard lock{impl_->mutex};
  impl_->front(model).max_tokens.Observe(max_tokens);
}

void metrics::open_inference(std::string_view model, std::string_view version) {
  const std::lock_guard lock{impl_->mutex};
  impl_->inferences.open(model, version);
}

void metrics::inference_pending(std::string_view model, std::string_view version, int change) {
  const std::lock_guard lock{impl_->mutex};
  impl_->inferences.pending(model, version, change);
}

void metrics::observe_inference(std::string_view model, std::string_view version,
                                const inference_done& done) {
  const std::lock_guard lock{impl_->mutex};
  impl_->inferences.succeeded(model, version, done);
}

void metrics::inference_executed(std::string_view model, std::string_view version) {
  const std::lock_guard lock{impl_->mutex};
  impl_->inferences.executed(model, version);
}

void metrics::inference_failed(std::string_view model, std::string_view version,
                               std::string_view reason) {
  const std::lock_guard lock{impl_->mutex};
  impl_->inferences.failed(model, version, reason);
}

void metrics::backend_count(std::string_view model, std::string_view metric, double by) {
  const std::lock_guard lock{impl_->mutex};
  auto* counter = impl_->backends.counter(*impl_->registry, model, metric);
  if (counter != nullptr && by > 0)
    counter->Increment(by);
}

void metrics::backend_measure(std::string_view model, std::string_view metric, double value) {
  const std::lock_guard lock{impl_->mutex};
  if (auto* gauge = impl_->backends.gauge(*impl_->registry, model, metric))
    gauge->Set(value);
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
