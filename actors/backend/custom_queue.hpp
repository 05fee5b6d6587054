#pragma once

#include "troupe/actors/inference.hpp"
#include "troupe/base/clock.hpp"
#include "troupe/base/error.hpp"
#include "troupe/config/triton.hpp"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace troupe::actors {

/// Ends a request with an error.
void end_with_error(response_sink& sink, error why);

/// One request on its way through a library.
struct custom_job {
  inference_request_ptr request;
  response_sink_ptr sink;
  time_point since;
  /// Of its priority; the lowest goes first.
  std::uint64_t level = 0;
  /// When it has waited too long, and whether that ends it.
  time_point late_at = time_point::max();
  bool reject_late = true;
  /// It has waited too long, and stands behind those of its level that have not.
  bool late = false;
};
using custom_batch = std::vector<custom_job>;

/// The requests of a custom model that wait, and who goes with whom: the order and the batches of
/// Triton's dynamic batcher. The instances take from it in their own threads, so that none waits
/// for a message between two requests. Thread-safe; calls sinks, but never under its lock.
class custom_queue {
public:
  /// @param most_waiting requests; more are refused
  custom_queue(std::shared_ptr<const config::triton_model> model, std::size_t most_waiting);

  /// @errors busy: as many wait as may, of all or of its priority; draining: closed
  [[nodiscard]] result<void> push(inference_request_ptr request, response_sink_ptr sink,
                                  time_point now);
  /// The requests to compute together next, accepted: none when none waits, or when those that do
  /// had better wait for more.
  [[nodiscard]] custom_batch take(time_point now);
  void abandon(const response_sink_ptr& owner);
  /// Ends all that waits; nothing is taken any more.
  void close(const error& why);
  [[nodiscard]] std::size_t size() const;

  struct outlook {
    /// From when on take() gives something, if nothing else comes.
    std::optional<time_point> batch;
    /// When the next request has waited too long.
    std::optional<time_point> late;
  };
  /// Also sees to those that have waited too long.
  [[nodiscard]] outlook look(time_point now);

private:
  struct plan {
    std::size_t count = 0;
    time_point at;
  };

  [[nodiscard]] const config::queue_policy& policy_of(std::uint64_t level) const;
  void insert(custom_job job);
  [[nodiscard]] custom_batch sort_out_late(time_point now);
  [[nodiscard]] plan next(time_point now) const;
  [[nodiscard]] bool alike(const custom_job& a, const custom_job& b) const;

  std::shared_ptr<const config::triton_model> model_;
  std::size_t most_waiting_;
  /// Batches are made: at most of `most_` inferences, and of one of these sizes rather than
  /// another.
  bool batches_ = false;
  std::uint32_t most_ = 1;
  std::vector<std::uint32_t> preferred_;
  duration delay_{0};
  std::uint64_t levels_ = 0;
  bool any_late_ = false;

  mutable std::mutex mutex_;
  std::deque<custom_job> waiting_;
  bool closed_ = false;
};

} // namespace troupe::actors
