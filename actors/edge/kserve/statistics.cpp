#include "actors/edge/kserve/statistics.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>

namespace troupe::actors::kserve {

namespace {

using ordered = nlohmann::ordered_json;

/// Responses of a stream that have a line of their own; later ones share the last.
constexpr std::size_t most_responses = 1024;

ordered json_of(const tally& t) { return {{"count", t.count}, {"ns", t.ns}}; }

/// What is not measured apart takes no time of its own; the counts are those of the executions.
ordered batches_json(const std::map<std::uint32_t, tally>& batches) {
  auto all = ordered::array();
  for (const auto& [size, took] : batches)
    all.push_back({{"batch_size", size},
                   {"compute_input", json_of(tally{took.count, 0})},
                   {"compute_infer", json_of(took)},
                   {"compute_output", json_of(tally{took.count, 0})}});
  return all;
}

std::uint64_t unix_ms() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
}

const char* reason_of(errc why) {
  switch (why) {
  case errc::busy:
  case errc::pool_exhausted:
  case errc::draining:
    return "REJECTED";
  case errc::cancelled:
    return "CANCELED";
  default:
    return "BACKEND";
  }
}

} // namespace

void tally::add(duration d) {
  ++count;
  ns += static_cast<std::uint64_t>(
      std::max<std::int64_t>(0, std::chrono::duration_cast<std::chrono::nanoseconds>(d).count()));
}

statistics::response_count& statistics::response_of(entry& e, std::size_t index) {
  const auto at = std::min(index, most_responses - 1);
  if (e.responses.size() <= at)
    e.responses.resize(at + 1);
  return e.responses[at];
}

void statistics::pending(const key& model, int change) {
  if (numbers_)
    numbers_->inference_pending(model.first, model.second, change);
}

void statistics::responded(const key& model, std::size_t index, duration took, bool empty) {
  const std::lock_guard lock{mutex_};
  auto& r = response_of(entries_[model], index);
  r.infer.add(took);
  r.output.add(duration{0});
  (empty ? r.empty : r.success).add(took);
}

void statistics::succeeded(const key& model, const inference_times& times,
                           std::uint32_t batch_size) {
  {
    const std::lock_guard lock{mutex_};
    auto& e = entries_[model];
    e.last_inference_ms = unix_ms();
    e.inferences += batch_size;
    e.success.add(times.queue + times.infer);
    e.queue.add(times.queue);
    e.infer.add(times.infer);
  }
  if (numbers_)
    numbers_->observe_inference(model.first, model.second, {times.queue, times.infer, batch_size});
}

void statistics::executed(const key& model, std::uint32_t batch_size, duration took) {
  {
    const std::lock_guard lock{mutex_};
    auto& e = entries_[model];
    ++e.executions;
    e.batches[batch_size].add(took);
  }
  if (numbers_)
    numbers_->inference_executed(model.first, model.second);
}

void statistics::failed(const key& model, const inference_times& times, errc why,
                        std::size_t responses) {
  {
    const std::lock_guard lock{mutex_};
    auto& e = entries_[model];
    e.fail.add(times.queue + times.infer);
    auto& r = response_of(e, responses);
    (why == errc::cancelled ? r.cancel : r.fail).add(times.infer);
  }
  if (numbers_)
    numbers_->inference_failed(model.first, model.second, reason_of(why));
}

std::string statistics::json(const std::vector<key>& models) const {
  ordered out = {{"model_stats", ordered::array()}};
  const std::lock_guard lock{mutex_};
  for (const auto& model : models) {
    const auto found = entries_.find(model);
    const entry e = found == entries_.end() ? entry{} : found->second;
    // What is not measured apart takes no time of its own; the counts are those of the requests.
    const tally none{e.success.count, 0};
    ordered responses = ordered::object();
    for (std::size_t i = 0; i < e.responses.size(); ++i) {
      const auto& r = e.responses[i];
      responses[std::to_string(i)] = {
          {"compute_infer", json_of(r.infer)},  {"compute_output", json_of(r.output)},
          {"success", json_of(r.success)},      {"fail", json_of(r.fail)},
          {"empty_response", json_of(r.empty)}, {"cancel", json_of(r.cancel)}};
    }
    out["model_stats"].push_back({{"name", model.first},
                                  {"version", model.second},
                                  {"last_inference", e.last_inference_ms},
                                  {"inference_count", e.inferences},
                                  {"execution_count", e.executions},
                                  {"inference_stats",
                                   {{"success", json_of(e.success)},
                                    {"fail", json_of(e.fail)},
                                    {"queue", json_of(e.queue)},
                                    {"compute_input", json_of(none)},
                                    {"compute_infer", json_of(e.infer)},
                                    {"compute_output", json_of(none)},
                                    {"cache_hit", json_of({})},
                                    {"cache_miss", json_of({})}}},
                                  {"response_stats", std::move(responses)},
                                  {"batch_stats", batches_json(e.batches)},
                                  {"memory_usage", ordered::array()}});
  }
  return out.dump();
}

} // namespace troupe::actors::kserve
