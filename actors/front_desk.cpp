#include "actors/front_desk.hpp"

#include <algorithm>

namespace troupe::actors {

std::shared_ptr<const front_view> front_desk::view() const {
  const std::lock_guard lock{mutex_};
  return view_;
}

void front_desk::publish(std::shared_ptr<const front_view> next) {
  const std::lock_guard lock{mutex_};
  view_ = std::move(next);
}

void front_desk::mark_progress(time_point now) noexcept {
  progress_.store(now.time_since_epoch().count(), std::memory_order_relaxed);
}

bool front_desk::ready(time_point now, duration window) const {
  const auto current = view();
  const bool all_ready = !current->models.empty() && !current->draining &&
                         std::all_of(current->models.begin(), current->models.end(),
                                     [](const model_entry& m) { return m.state == "ready"; });
  const time_point seen{duration{progress_.load(std::memory_order_relaxed)}};
  return all_ready && now - seen <= window;
}

std::shared_ptr<void> front_desk::open_answer() {
  ++*answers_;
  return {nullptr, [answers = answers_](void*) { --*answers; }};
}

const model_entry* find_model(const front_view& view, std::string_view name) {
  const auto answers = [name](const model_entry& m) {
    return std::find(m.served_names.begin(), m.served_names.end(), name) != m.served_names.end();
  };
  const auto found = std::find_if(view.models.begin(), view.models.end(), answers);
  return found == view.models.end() ? nullptr : &*found;
}

} // namespace troupe::actors
