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
  if (current->models.empty())
    return current->complete && !current->draining;
  const bool all_ready =
      !current->draining &&
      std::all_of(current->models.begin(), current->models.end(), [](const model_entry& m) {
        return m.state == "ready" || m.state == "unloading";
      });
  const time_point seen{duration{progress_.load(std::memory_order_relaxed)}};
  return all_ready && now - seen <= window;
}

void front_desk::set_control(std::shared_ptr<const model_control> control) {
  const std::lock_guard lock{mutex_};
  control_ = std::move(control);
}

std::shared_ptr<const model_control> front_desk::control() const {
  const std::lock_guard lock{mutex_};
  return control_;
}

void front_desk::set_repository(std::vector<std::string> names) {
  auto next = std::make_shared<const std::vector<std::string>>(std::move(names));
  const std::lock_guard lock{mutex_};
  repository_ = std::move(next);
}

std::shared_ptr<const std::vector<std::string>> front_desk::repository() const {
  const std::lock_guard lock{mutex_};
  return repository_;
}

std::shared_ptr<void> front_desk::open_answer() {
  ++*answers_;
  return {nullptr, [answers = answers_](void*) { --*answers; }};
}

const model_entry* find_model(const front_view& view, std::string_view name) {
  const auto answers = [name](const model_entry& m) {
    return m.chosen &&
           std::find(m.served_names.begin(), m.served_names.end(), name) != m.served_names.end();
  };
  const auto found = std::find_if(view.models.begin(), view.models.end(), answers);
  return found == view.models.end() ? nullptr : &*found;
}

} // namespace troupe::actors
