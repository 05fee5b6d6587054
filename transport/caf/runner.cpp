#include "transport/caf/runner.hpp"

#include <caf/scheduled_actor.hpp>
#include <caf/scheduler/abstract_coordinator.hpp>

#include <algorithm>
#include <utility>

namespace troupe::net::seam {

namespace {

/// Messages that one actor may handle here in a row.
constexpr std::size_t messages_max = 50;

} // namespace

void runner::run_inline(caf::actor_id who) {
  const std::lock_guard guard{mutex_};
  chosen_.push_back(who);
  some_ = true;
}

bool runner::is_chosen(caf::resumable* what) const {
  if (what->subtype() != caf::resumable::scheduled_actor)
    return false;
  if (all_)
    return true;
  if (!some_)
    return false;
  const auto id = static_cast<caf::scheduled_actor*>(what)->id();
  const std::lock_guard guard{mutex_};
  return std::find(chosen_.begin(), chosen_.end(), id) != chosen_.end();
}

void runner::exec_later(caf::resumable* what) {
  if (is_chosen(what))
    waiting_.push_back(what);
  else
    system().scheduler().enqueue(what);
}

void runner::run() {
  while (!waiting_.empty()) {
    for (auto* what : std::exchange(waiting_, {})) {
      switch (what->resume(this, messages_max)) {
      case caf::resumable::resume_later:
        system().scheduler().enqueue(what);
        break;
      case caf::resumable::shutdown_execution_unit:
        break;
      default:
        caf::intrusive_ptr_release(what);
      }
    }
  }
}

} // namespace troupe::net::seam
