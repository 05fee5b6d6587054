#include "actors/metrics/router_series.hpp"

#include "actors/metrics/buckets.hpp"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>

#include <string>

namespace troupe::actors {

void router_series::count(const char* name, const char* help, std::uint64_t step,
                          const prometheus::Labels& labels) {
  prometheus::BuildCounter().Name(name).Help(help).Register(registry_).Add(labels).Increment(
      static_cast<double>(step));
}

void router_series::migrated(std::uint64_t exact, std::uint64_t inexact) {
  for (const bool same : {true, false})
    count("troupe:migrations_total",
          "Streams that went on at another replica, by whether their tokens are the same.",
          same ? exact : inexact, {{"exact", same ? "true" : "false"}});
}

void router_series::poisoned(std::uint64_t requests) {
  count("troupe:poisoned_requests_total",
        "Requests that were refused because replicas died under them in a row.", requests, {});
}

void router_series::update(const router_numbers& n) {
  const auto set = [this](const char* name, const char* help, std::uint64_t value) {
    prometheus::BuildGauge().Name(name).Help(help).Register(registry_).Add({}).Set(
        static_cast<double>(value));
  };
  count("troupe:router_decisions_total", "Replicas chosen, migrations and retries included.",
        n.decisions, {{"policy", std::string{n.policy}}});
  count("troupe:router_index_gaps_total", "Holes found in the events of replicas' prefix caches.",
        n.index_gaps, {});
  count("troupe:router_snapshots_total", "Snapshots of prefix caches that were asked for.",
        n.snapshots, {});
  set("troupe:router_index_blocks", "Blocks that the prefix index knows.", n.index_blocks);
  set("troupe:router_index_bytes", "Bytes of the prefix index.", n.index_bytes);
  set("troupe:router_parked_streams", "Streams that wait for a replica.", n.parked);
}

void router_series::decided(std::string_view policy, double seconds) {
  prometheus::BuildHistogram()
      .Name("troupe:router_decision_seconds")
      .Help("From the arrival of a request at the router to its dispatch.")
      .Register(registry_)
      .Add({{"policy", std::string{policy}}}, phase_buckets())
      .Observe(seconds);
}

} // namespace troupe::actors
