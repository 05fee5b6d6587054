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
  /// Of the model; closed when the actor ends.
  std::shared_ptr<custom_queue> queue;
};

/// A backend that also wakes itself.
using custom_core = backend_core::extend<TROUPE_TAKES(tick_atom)>;

/// A model of a backend that stands alone: starts its instances and has those back that are lost,
/// and looks at the queue when something in it is due. Requests reach the queue through it, or
/// without it. Never calls the library itself.
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
    /// It was initialized, and its process has not ended since.
    bool there = false;
  };

  [[nodiscard]] caf::result<void> load();
  [[nodiscard]] custom_instance spawn_one(const instance_options& options);
  void gain(std::size_t index);
  void lose(std::size_t index);
  [[nodiscard]] bool all_there() const;
  void execute(inference_request_ptr request, response_sink_ptr sink);
  void look();

  custom_core::pointer self_;
  custom_options options_;
  std::vector<seat> seats_;
  bool own_process_ = false;
  /// All were initialized once; and who waits for that.
  bool began_ = false;
  caf::response_promise loaded_;
  /// When the next tick comes.
  std::optional<time_point> tick_at_;
};

/// The behaviour of such a model; spawn it on the pool.
custom_core::behavior_type run_custom(custom_core::stateful_pointer<custom_state> self,
                                      custom_options options);

} // namespace troupe::actors
