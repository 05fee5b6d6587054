#pragma once

#include <caf/all.hpp>

#include <atomic>
#include <mutex>
#include <vector>

namespace troupe::net::seam {

/// What the progress thread is to CAF: where actors go that a message from the wire has woken.
/// Most go to CAF's scheduler; those that were chosen run here, after the message was handed over.
class runner final : public caf::execution_unit {
public:
  runner(caf::actor_system& sys, bool all_inline) : execution_unit{&sys}, all_{all_inline} {}

  void exec_later(caf::resumable* what) override;
  /// Runs what was chosen. On the progress thread alone.
  void run();
  /// Any thread.
  void run_inline(caf::actor_id who);

private:
  [[nodiscard]] bool is_chosen(caf::resumable* what) const;

  bool all_;
  std::vector<caf::resumable*> waiting_;
  std::atomic<bool> some_ = false;
  mutable std::mutex mutex_;
  std::vector<caf::actor_id> chosen_;
};

} // namespace troupe::net::seam
