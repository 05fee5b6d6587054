#pragma once

#include "actors/backend/backend_actor.hpp"
#include "actors/backend/custom_instance.hpp"

#include <deque>
#include <memory>
#include <vector>

namespace troupe::actors {

struct custom_options {
  config::model_config model;
  std::shared_ptr<class metrics> numbers;
};

/// A model of a backend that stands alone: gives its requests to the instances that are free, and
/// holds the others back, up to the model's limit. Never calls the library itself.
class custom_state {
public:
  static inline const char* name = "troupe.custom";

  explicit custom_state(backend_core::pointer self) : self_{self} {}
  ~custom_state();
  custom_state(const custom_state&) = delete;
  custom_state& operator=(const custom_state&) = delete;

  [[nodiscard]] backend_core::behavior_type make_behavior(custom_options options);

private:
  struct seat {
    custom_instance instance;
    bool free = false;
  };

  [[nodiscard]] caf::result<void> load();
  void execute(inference_request_ptr request, response_sink_ptr sink);
  void abandon(const response_sink_ptr& owner);
  void dispatch();
  [[nodiscard]] std::uint64_t unanswered() const;
  void give(std::size_t index, const custom_job_ptr& job);

  backend_core::pointer self_;
  custom_options options_;
  std::vector<seat> seats_;
  std::size_t loaded_ = 0;
  std::deque<custom_job_ptr> waiting_;
};

/// The behaviour of such a model; spawn it on the pool.
backend_core::behavior_type run_custom(backend_core::stateful_pointer<custom_state> self,
                                       custom_options options);

} // namespace troupe::actors
