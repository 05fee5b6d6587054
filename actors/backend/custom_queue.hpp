#pragma once

#include "actors/backend/end_with_error.hpp"
#include "troupe/actors/inference.hpp"
#include "troupe/base/clock.hpp"
#include "troupe/base/error.hpp"
#include "troupe/config/triton.hpp"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace troupe::actors {

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
/// Triton's dynamic batcher. Who has a request puts it in, the instances take in their own threads,
/// and one that is idle is roused by whoever makes work for it: no actor stands between them.
/// Thread-safe; calls sinks and instances, but never under its lock.
class custom_queue final : public request_door {
public:
  /// @param most_waiting requests; more are refused
  custom_queue(std::shared_ptr<const config::triton_model> model, std::size_t most_waiting);

  /// An instance, which is away until it enters. When roused it takes until nothing comes.
  /// @return its number
  std::size_t add_instance(std::function<void()> rouse);
  /// The instance is there, and idle.
  void enter(std::size_t instance);
  /// It takes nothing until it enters again; what waits goes to the others.
  void leave(std::size_t instance);
  /// What is called when the queue is to be looked at, at some time to come.
  void set_reminder(std::function<void()> remind);

  /// @errors busy: as many wait as may, of all or of its priority; and why it was closed
  [[nodiscard]] result<void> push(inference_request_ptr request, response_sink_ptr sink,
                                  time_point now);
  void let_in(inference_request_ptr request, response_sink_ptr sink) override;
  /// The requests that `instance` is to compute together next, accepted: none when none waits, or
  /// when those that do had better wait for more; it is idle then.
  [[nodiscard]] custom_batch take(std::size_t instance, time_point now);
  void abandon(const response_sink_ptr& owner);
  /// Ends all that waits; nothing is taken any more.
  void close(const error& why);
  [[nodiscard]] std::size_t size() const;
  /// Requests that wait, and instances that are at work.
  [[nodiscard]] std::size_t unanswered() const;

  /// Ends those that have waited too long and rouses instances for what is due.
  /// @return when it is to be called again, if nothing else comes
  [[nodiscard]] std::optional<time_point> look(time_point now);

private:
  struct instance_seat {
    std::function<void()> rouse;
    bool there = false;
    bool idle = false;
  };
  /// What is left to do once the lock is given back.
  struct errands {
    custom_batch rejected;
    std::vector<const std::function<void()>*> rouse;
    const std::function<void()>* remind = nullptr;
  };
  struct plan {
    std::size_t count = 0;
    time_point at;
  };

  [[nodiscard]] const config::queue_policy& policy_of(std::uint64_t level) const;
  [[nodiscard]] result<void> queue_up(custom_job job, const config::queue_policy& policy);
  void insert(custom_job job);
  [[nodiscard]] custom_batch sort_out_late(time_point now);
  [[nodiscard]] plan next(time_point now) const;
  void set_there(std::size_t instance, bool there);
  [[nodiscard]] std::optional<time_point> rouse_idle(time_point now, errands& after);
  void arrange(time_point now, errands& after);
  static void run(const errands& after);
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
  /// Only grows, so that a seat stays where it is.
  std::deque<instance_seat> instances_;
  std::function<void()> remind_;
  /// The last time that a reminder was asked for.
  std::optional<time_point> reminded_for_;
  std::optional<error> closed_;
};

} // namespace troupe::actors
