// The part of a node that changes what it serves: models that are loaded, replaced and unloaded
// while it runs.
#include "actors/node/node.hpp"
#include "troupe/base/log.hpp"

#include <algorithm>
#include <ctime>
#include <utility>

namespace troupe::actors {

namespace {

/// Of a tenth of a second each, without a request: what was on its way has arrived.
constexpr std::uint32_t quiet_ticks_wanted = 8;
/// The old replicas go on taking requests until every router must know the new ones.
constexpr std::chrono::milliseconds head_start{500};
/// Of a backend that executes something long.
constexpr std::chrono::hours answer_limit{24};

/// The version that is served of a model that was read.
config::model_config served_of(const config::loaded_model& loaded) {
  return loaded.engines.empty() ? config::without_engine(loaded.description)
                                : loaded.engines.back();
}

} // namespace

std::optional<std::size_t> node_state::find_served(const std::string& name) const {
  for (std::size_t i = 0; i < models_.size(); ++i)
    if (models_[i].config.name == name && models_[i].is == stage::serving)
      return i;
  return std::nullopt;
}

/// Why a model cannot be loaded beside the others, or nothing.
std::optional<error> node_state::refuse_change(const config::model_config* model) const {
  if (!alone() || !is_front())
    return error{errc::unsupported, "models are loaded and unloaded by request only in a cluster "
                                    "of one node without an address"};
  if (draining_)
    return error{errc::draining, "the node is shutting down and takes no new orders"};
  if (model == nullptr)
    return std::nullopt;
  for (const auto& other : models_)
    for (const auto& taken : *other.config.engine.served_model_name)
      for (const auto& wanted : *model->engine.served_model_name)
        if (other.is == stage::serving && other.config.name != model->name && taken == wanted)
          return error{errc::conflict, fmt::format("'{}' is also the name of the model '{}'; names "
                                                   "are unique",
                                                   wanted, other.config.name)};
  return std::nullopt;
}

caf::result<std::uint64_t> node_state::load(loaded_model_ptr loaded) {
  const auto model = served_of(*loaded);
  if (const auto why = refuse_change(&model))
    return to_caf(*why);
  auto answer = self_->make_response_promise<std::uint64_t>();
  changes_.push_back({.name = model.name, .loaded = std::move(loaded), .answer = answer});
  go_on_changing();
  return answer;
}

caf::result<std::uint64_t> node_state::unload(const std::string& name) {
  if (const auto why = refuse_change(nullptr))
    return to_caf(*why);
  auto answer = self_->make_response_promise<std::uint64_t>();
  changes_.push_back({.name = name, .answer = answer});
  go_on_changing();
  return answer;
}

/// One change of a model at a time, in the order that they came; different models do not wait for
/// each other.
void node_state::go_on_changing() {
  std::set<std::string> busy;
  for (auto& change : changes_)
    if (busy.insert(change.name).second)
      go_on(change);
  std::erase_if(changes_, [](const model_change& c) { return c.ended; });
}

void node_state::go_on(model_change& change) {
  if (!std::exchange(change.begun, true)) {
    change.old = find_served(change.name);
    if (change.loaded)
      start_change(change);
    else if (!change.old)
      return end_change(change, error{errc::not_found, fmt::format("failed to unload '{}', no such "
                                                                   "model is loaded",
                                                                   change.name)});
    else
      start_leaving(*change.old);
    return publish();
  }
  if (change.next) {
    const auto stand = stand_alone(*change.next);
    if (stand.state == "failed") {
      note_unloaded(*change.next, stand.note);
      end_model(*change.next);
      return end_change(change, error{errc::internal, fmt::format("failed to load '{}', {}",
                                                                  change.name, stand.note)});
    }
    if (stand.state != "ready")
      return;
    take_over(change);
  }
  if (change.old && !has_left(*change.old))
    return;
  if (change.old) {
    if (!change.loaded)
      note_unloaded(*change.old, "unloaded");
    end_model(*change.old);
  }
  end_change(change, std::nullopt);
}

/// The new one loads beside the old, which serves until the new one can.
void node_state::start_change(model_change& change) {
  const auto model = served_of(*change.loaded);
  change.next = models_.size();
  models_.push_back({.config = model,
                     .triton = std::make_shared<const config::triton_model>(model.triton),
                     .files = change.loaded->files,
                     .is = change.old ? stage::coming : stage::serving,
                     .created = std::time(nullptr)});
  std::erase_if(unloaded_, [&](const unloaded_model& m) { return m.name == change.name; });
  start_backend(*change.next);
  if (change.loaded->engines.empty())
    return;
  auto alone = options_.cluster;
  alone.models = {model};
  for (auto where : place(alone)) {
    where.model = *change.next;
    start_replica(where);
  }
}

/// From now on the new model is the one that is seen.
void node_state::take_over(model_change& change) {
  auto& next = models_[*change.next];
  if (std::exchange(next.is, stage::serving) == stage::coming)
    for (const auto& [id, replica] : replicas_)
      if (replica.where.model == *change.next)
        for (const auto& [hub, router] : routers())
          tell(self_, replica.supervisor, attach_atom::value, hub, router);
  if (change.old) {
    models_[*change.old].is = stage::leaving;
    tell_later(self_, head_start, attach_atom::value, "leave:" + std::to_string(*change.old));
  }
  change.next.reset();
  publish();
}

void node_state::start_leaving(std::size_t index) {
  if (models_[index].is == stage::gone)
    return;
  models_[index].is = stage::leaving;
  models_[index].quiet_ticks = 0;
  for (const auto& [id, replica] : replicas_)
    if (replica.where.model == index)
      tell(self_, replica.supervisor, drain_atom::value);
}

/// Whether nothing of a model that leaves runs any more. The backend's answer comes after whatever
/// was sent to it before: what it still had to tokenise is with the replicas then.
bool node_state::has_left(std::size_t index) {
  std::uint64_t held = 0;
  for (const auto& [id, replica] : replicas_)
    if (replica.where.model == index)
      held += replica.report.stats.running + replica.report.stats.waiting;
  auto& model = models_[index];
  if (held > 0)
    model.quiet_ticks = 0;
  else if (model.backend)
    ask(self_, model.backend, answer_limit, status_atom::value)
        .then(
            [this, index](std::uint64_t waiting) {
              auto& quiet = models_[index].quiet_ticks;
              quiet = waiting > 0 ? 0 : quiet + 1;
            },
            [this, index](const caf::error&) { ++models_[index].quiet_ticks; });
  else
    ++model.quiet_ticks;
  return model.quiet_ticks >= quiet_ticks_wanted;
}

/// Ends the actors of a model; its place in the list stays, because others are known by theirs.
void node_state::end_model(std::size_t index) {
  auto& model = models_[index];
  model.is = stage::gone;
  model.backend_ready = false;
  if (auto backend = std::exchange(model.backend, nullptr))
    caf::anon_send_exit(backend, caf::exit_reason::user_shutdown);
  const error why{errc::peer_down, fmt::format("model '{}' was unloaded", model.config.name)};
  std::erase_if(replicas_, [&](const auto& item) {
    if (item.second.where.model != index)
      return false;
    for (const auto& [hub, router] : routers())
      tell(self_, router, detach_atom::value, item.first, to_caf(why));
    self_->demonitor(item.second.supervisor->address());
    caf::anon_send_exit(item.second.supervisor, caf::exit_reason::user_shutdown);
    return true;
  });
  model.files.reset();
}

void node_state::note_unloaded(std::size_t index, std::string reason) {
  const auto& model = models_[index].config;
  if (!find_served(model.name) || *find_served(model.name) == index)
    unloaded_.push_back({model.name, model.version, std::move(reason)});
}

void node_state::end_change(model_change& change, const std::optional<error>& why) {
  change.ended = true;
  if (why)
    change.answer.deliver(to_caf(*why));
  else
    change.answer.deliver(change.loaded ? served_of(*change.loaded).version : 0);
  log_info("model {}: {}", change.name,
           why             ? why->note
           : change.loaded ? std::string{"loaded"}
                           : std::string{"unloaded"});
  publish();
}

} // namespace troupe::actors
