#pragma once

#include "actors/edge/kserve/statistics.hpp"
#include "actors/front_desk.hpp"
#include "actors/metrics/metrics.hpp"
#include "troupe/base/clock.hpp"

#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace troupe::actors {

/// Where the backends' threads leave the parts of one HTTP answer and the edge's thread finds them.
///
/// Holds at most one part per choice: what arrives before the edge looks again is merged, so its
/// memory is bounded by the answer however slowly the client reads. Thread-safe.
class inbox {
public:
  /// `wake` is called from any thread, once after each empty-to-full change; it must not block.
  inbox(std::size_t choices, std::function<void()> wake);

  /// From a backend's thread.
  void put(std::size_t choice, response_part part);

  struct entry {
    std::size_t choice;
    response_part part;
  };
  /// What has come since the last call, in the order of the choices.
  [[nodiscard]] std::vector<entry> take();
  /// Nobody will look again: what comes is dropped.
  void close();
  [[nodiscard]] bool closed() const;

private:
  mutable std::mutex mutex_;
  std::vector<std::optional<response_part>> pending_;
  std::function<void()> wake_;
  bool woken_ = false;
  bool closed_ = false;
};

/// What a sink needs to know for the latencies and the statistics.
struct sink_origin {
  std::string model;
  time_point arrival;
  std::shared_ptr<metrics> numbers;
  std::shared_ptr<kserve::statistics> counts;
  /// The model's own name and its version.
  kserve::statistics::key counted_as;
  /// Each part is a response to the client, not only the last.
  bool stream = false;
  /// Inferences of the request, and whether the backend tells by on_executed() what it computed in
  /// one go; otherwise each request is an execution.
  std::uint32_t batch_size = 1;
  bool tells_executions = false;
};

/// The sink of one choice. When the last reference goes without a finished answer (the backend died
/// with it), the client gets an error instead of silence.
class choice_sink final : public response_sink {
public:
  choice_sink(std::shared_ptr<inbox> to, std::size_t choice, sink_origin origin);
  ~choice_sink() override;
  choice_sink(const choice_sink&) = delete;
  choice_sink& operator=(const choice_sink&) = delete;

  void on_accepted(request_id id, std::uint32_t prompt_tokens) override;
  void on_part(response_part part) override;
  void on_executed(std::uint32_t batch_size, std::chrono::nanoseconds took) override;
  [[nodiscard]] bool wanted() const override { return !to_->closed(); }

private:
  /// What the figures need to know of a part that is gone.
  struct outline {
    time_point at;
    engine::finish_reason finish;
    std::size_t tokens;
    bool responds;
    bool empty;
    errc why;
  };

  void observe(const outline& part);
  void count(const outline& part);
  void settle();
  [[nodiscard]] kserve::inference_times times() const;

  std::shared_ptr<inbox> to_;
  std::size_t choice_;
  sink_origin origin_;
  std::optional<time_point> last_;
  std::optional<time_point> accepted_;
  time_point responded_;
  std::size_t responses_ = 0;
  bool pending_ = true;
  bool finished_ = false;
};

} // namespace troupe::actors
