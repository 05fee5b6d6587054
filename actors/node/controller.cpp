#include "actors/node/controller.hpp"

#include "troupe/base/log.hpp"

#include <utility>

namespace troupe::actors {

namespace {

/// How often the list of models is read where nobody polls.
constexpr std::chrono::seconds list_interval{2};

void log_outcome(const std::string& name, const result<void>& done) {
  if (!done)
    log_error("model {}: {}", name, to_string(done.error()));
}

} // namespace

void controller_state::load(const std::string& name, const config::model_overrides& overrides,
                            outcome_of_order done) {
  auto read = config::load_model(options_.file, name, *options_.control.how, overrides);
  if (!read)
    return done(fail(read.error()));
  for (const auto& finding : read->warnings)
    log_warn("{}", to_string(finding));
  ask_without_limit(
      self_, options_.node, attach_atom::value,
      loaded_model_ptr{std::make_shared<const config::loaded_model>(std::move(*read))})
      .then([done](std::uint64_t) { done({}); },
            [done](const caf::error& e) { done(fail(from_caf(e))); });
}

void controller_state::unload(const std::string& name, outcome_of_order done) {
  ask_without_limit(self_, options_.node, detach_atom::value, name)
      .then([done](std::uint64_t) { done({}); },
            [done](const caf::error& e) { done(fail(from_caf(e))); });
}

void controller_state::take(const model_order& order) {
  if (order.load)
    load(order.name, order.overrides, order.done);
  else
    unload(order.name, order.done);
}

/// What the repository holds now, for its index.
void controller_state::list() {
  const auto all = config::list_repository(options_.repository);
  if (!all)
    return log_warn("the repository cannot be listed: {}", to_string(all.error()));
  std::vector<std::string> names;
  for (const auto& entry : *all)
    names.push_back(entry.name);
  options_.desk->set_repository(std::move(names));
}

/// Loads what is new or changed and unloads what is gone. What fails is tried again when its files
/// change again.
void controller_state::poll() {
  const auto all = config::list_repository(options_.repository);
  if (!all)
    return log_warn("the repository cannot be polled: {}", to_string(all.error()));
  std::map<std::string, std::uint64_t> now;
  for (const auto& entry : *all)
    if (const auto print = config::fingerprint_model(options_.repository, entry.name))
      now.emplace(entry.name, *print);
    else if (const auto old = seen_.find(entry.name); old != seen_.end())
      now.insert(*old); // Somebody writes it just now; the next look sees what it has become.
  if (std::exchange(first_look_, false)) {
    seen_ = std::move(now);
    return;
  }
  for (const auto& [name, print] : now)
    if (const auto old = seen_.find(name);
        !busy_.contains(name) && (old == seen_.end() || old->second != print)) {
      seen_[name] = print;
      follow(name, true);
    }
  std::erase_if(seen_, [&](const auto& item) {
    const bool gone = !busy_.contains(item.first) && !now.contains(item.first);
    if (gone)
      follow(item.first, false);
    return gone;
  });
}

/// One order for a model at a time: files that change faster than they load make no queue.
void controller_state::follow(const std::string& name, bool there) {
  busy_.insert(name);
  const auto done = [this, name](const result<void>& ended) {
    busy_.erase(name);
    log_outcome(name, ended);
  };
  if (there)
    load(name, {}, done);
  else
    unload(name, done);
}

void controller_state::tick() {
  const bool polls = options_.control.mode == control_mode::poll;
  tell_later(self_, polls ? options_.control.poll_interval : list_interval, tick_atom::value);
  list();
  if (polls)
    poll();
}

controller_actor::behavior_type controller_state::make_behavior(controller_options options) {
  options_ = std::move(options);
  self_->monitor(options_.node);
  self_->set_down_handler([this](const caf::down_msg&) { self_->quit(); });
  tick();
  return {
      [this](load_atom, const model_order_ptr& order) { take(*order); },
      [this](tick_atom) { tick(); },
  };
}

controller_actor spawn_controller(caf::actor_system& system, controller_options options) {
  const auto behavior = [](controller_actor::stateful_pointer<controller_state> self,
                           controller_options given) {
    return state(self).make_behavior(std::move(given));
  };
  return system.spawn<caf::detached>(behavior, std::move(options));
}

} // namespace troupe::actors
