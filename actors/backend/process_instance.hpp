#pragma once

#include "actors/backend/custom_instance.hpp"
#include "actors/backend/process_link.hpp"
#include "actors/node/backoff.hpp"

#include <chrono>
#include <memory>

namespace troupe::actors {

/// An instance in a process of its own, and that process's supervisor: a new one is started after
/// each end that nobody asked for, after a pause that grows.
class process_instance_state {
public:
  static inline const char* name = "troupe.process";

  explicit process_instance_state(custom_instance::pointer self) : self_{self} {}
  ~process_instance_state();
  process_instance_state(const process_instance_state&) = delete;
  process_instance_state& operator=(const process_instance_state&) = delete;

  [[nodiscard]] custom_instance::behavior_type make_behavior(instance_options options);

private:
  [[nodiscard]] caf::result<void> load();
  [[nodiscard]] caf::result<void> watch();
  void serve();
  void execute(custom_batch jobs);
  [[nodiscard]] result<void> start();
  void lose();
  [[nodiscard]] error ended() const;
  void try_again();

  custom_instance::pointer self_;
  instance_options options_;
  std::chrono::milliseconds limit_{0};
  std::unique_ptr<process_link> link_;
  backoff pause_;
  bool recovering_ = false;
  /// Answered with an error when the process has ended; and when there is one again.
  caf::response_promise lost_;
  caf::response_promise back_;
};

/// The behaviour of such an instance; spawn it detached.
custom_instance::behavior_type
run_process_instance(custom_instance::stateful_pointer<process_instance_state> self,
                     instance_options options);

/// "the process of the backend 'odd' of model 'm'".
[[nodiscard]] std::string process_name(const std::string& backend, const std::string& model);
/// The parameter PROCESS_LIMIT_SECONDS, which config has checked, or 300.
[[nodiscard]] std::chrono::milliseconds process_limit(std::string_view written);

} // namespace troupe::actors
