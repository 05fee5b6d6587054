#pragma once

#include "actors/backend/backend_actor.hpp"
#include "actors/backend/custom_instance.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <vector>

namespace troupe::actors {

struct custom_options {
  config::model_config model;
  std::shared_ptr<class metrics> numbers;
  /// Told when an instance is lost that comes back by itself, and when all are there again.
  std::function<void(bool all_there)> tell_standing;
};

/// A backend that also wakes itself.
using custom_core = backend_core::extend<TROUPE_TAKES(tick_atom)>;

/// A model of a backend that stands alone: puts its requests into a queue, up to the model's limit,
/// and wakes instances for them that are free. Never calls the library itself.
class custom_state {
public:
  static inline const char* name = "troupe.custom";

  explicit custom_state(custom_core::pointer self) : self_{self} {}
  ~custom_state();
  custom_state(const custom_state&) = delete;
  custom_state& operator=(const custom_state&) = delete;

  [[nodiscard]] custom_core::behavior_type make_behavior(custom_options options);

private:
  struct seat {
    custom_instance instance;
    /// It serves the queue.
    bool busy = false;
    /// It was initialized, and its process has not ended since.
    bool there = false;
  };

  [[nodiscard]] caf::result<void> load();
  [[nodiscard]] custom_instance spawn_one(const instance_options& options);
  void gain(std::size_t index);
  void lose(std::size_t index);
  [[nodiscard]] bool all_there() const;
  void execute(inference_request_ptr request, response_sink_ptr sink);
  void dispatch();
  void come_back(const custom_queue::outlook& ahead, time_point now);
  [[nodiscard]] std::uint64_t unanswered() const;
  void rouse(std::size_t index);

  custom_core::pointer self_;
  custom_options options_;
  std::vector<seat> seats_;
  bool own_process_ = false;
  /// All were initialized once; and who waits for that.
  bool began_ = false;
  caf::response_promise loaded_;
  std::shared_ptr<custom_queue> queue_;
  /// When the next tick comes.
  std::optional<time_point> tick_at_;
};

/// The behaviour of such a model; spawn it on the pool.
custom_core::behavior_type run_custom(custom_core::stateful_pointer<custom_state> self,
                                      custom_options options);

} // namespace troupe::actors
