#include "actors/metrics/inference_series.hpp"

#include "actors/metrics/metrics.hpp"

#include <algorithm>
#include <chrono>

namespace troupe::actors {

namespace {

using prometheus::Counter;
using prometheus::Gauge;
using prometheus::Labels;

double microseconds(duration d) {
  return std::max(0.0, std::chrono::duration<double, std::micro>(d).count());
}

} // namespace

struct inference_series::row {
  row(prometheus::Registry& r, const Labels& labels)
      : success{counter(r, labels, "nv_inference_request_success", "Requests that succeeded.")},
        inferences{counter(r, labels, "nv_inference_count", "Inferences performed.")},
        executions{counter(r, labels, "nv_inference_exec_count",
                           "Executions of the model; requests that were put together are one.")},
        request_us{counter(r, labels, "nv_inference_request_duration_us",
                           "Time from arrival to the final response.")},
        queue_us{counter(r, labels, "nv_inference_queue_duration_us",
                         "Time from arrival until a replica took the request.")},
        input_us{counter(r, labels, "nv_inference_compute_input_duration_us",
                         "Time of preparing inputs that is measured apart: none.")},
        infer_us{counter(r, labels, "nv_inference_compute_infer_duration_us",
                         "Time from there to the final response.")},
        output_us{counter(r, labels, "nv_inference_compute_output_duration_us",
                          "Time of preparing outputs that is measured apart: none.")},
        pending{prometheus::BuildGauge()
                    .Name("nv_inference_pending_request_count")
                    .Help("Requests that no replica has taken yet.")
                    .Register(r)
                    .Add(labels)} {
    for (const auto* reason : {"REJECTED", "CANCELED", "BACKEND", "OTHER"}) {
      auto all = labels;
      all.emplace("reason", reason);
      failures.emplace(reason, &counter(r, all, "nv_inference_request_failure",
                                        "Requests that failed, by reason."));
    }
  }

  static Counter& counter(prometheus::Registry& r, const Labels& labels, const char* name,
                          const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(r).Add(labels);
  }

  Counter &success, &inferences, &executions, &request_us, &queue_us, &input_us, &infer_us,
      &output_us;
  Gauge& pending;
  std::map<std::string, Counter*, std::less<>> failures;
};

inference_series::row& inference_series::of(std::string_view model, std::string_view version) {
  auto& slot = rows_[{std::string{model}, std::string{version}}];
  if (!slot)
    slot = std::make_shared<row>(
        registry_, Labels{{"model", std::string{model}}, {"version", std::string{version}}});
  return *slot;
}

void inference_series::pending(std::string_view model, std::string_view version, int change) {
  of(model, version).pending.Increment(change);
}

void inference_series::succeeded(std::string_view model, std::string_view version,
                                 const inference_done& done) {
  auto& r = of(model, version);
  r.success.Increment();
  r.inferences.Increment(done.batch_size);
  r.request_us.Increment(microseconds(done.queue + done.infer));
  r.queue_us.Increment(microseconds(done.queue));
  r.infer_us.Increment(microseconds(done.infer));
}

void inference_series::executed(std::string_view model, std::string_view version) {
  of(model, version).executions.Increment();
}

void inference_series::failed(std::string_view model, std::string_view version,
                              std::string_view reason) {
  auto& failures = of(model, version).failures;
  const auto found = failures.find(reason);
  (found == failures.end() ? failures.find("OTHER") : found)->second->Increment();
}

} // namespace troupe::actors
