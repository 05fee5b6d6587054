// The part of a node that changes what it serves: models that are loaded, replaced and unloaded
// while it runs.
#include "actors/node/node.hpp"
#include "troupe/base/log.hpp"

#include <algorithm>
#include <ctime>
#include <utility>

namespace troupe::actors {

namespace {

/// The versions of a model that was read.
std::vector<config::model_config> served_of(const config::loaded_model& loaded) {
  return loaded.engines.empty() ? config::without_engine(loaded.description) : loaded.engines;
}

} // namespace

std::vector<std::size_t> node_state::find_served(const std::string& name) const {
  std::vector<std::size_t> all;
  for (std::size_t i = 0; i < models_.size(); ++i)
    if (models_[i].config->name == name && models_[i].is == stage::serving)
      all.push_back(i);
  return all;
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
    for (const auto& taken : *other.config->engine.served_model_name)
      for (const auto& wanted : *model->engine.served_model_name)
        if (other.is == stage::serving && other.config->name != model->name && taken == wanted)
          return error{errc::conflict, fmt::format("'{}' is also the name of the model '{}'; names "
                                                   "are unique",
                                                   wanted, other.config->name)};
  return std::nullopt;
}

caf::result<std::uint64_t> node_state::load(loaded_model_ptr loaded) {
  const auto highest = served_of(*loaded).back();
  if (const auto why = refuse_change(&highest))
    return to_caf(*why);
  auto answer = self_->make_response_promise<std::uint64_t>();
  changes_.push_back({.name = highest.name, .loaded = std::move(loaded), .answer = answer});
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
    else if (change.old.empty())
      return end_change(change, error{errc::not_found, fmt::format("failed to unload '{}', no such "
                                                                   "model is loaded",
                                                                   change.name)});
    else
      for (const auto index : change.old)
        start_leaving(index);
    return publish();
  }
  if (!has_come(change) ||
      !std::all_of(change.old.begin(), change.old.end(), [&](auto i) { return has_left(i); }))
    return;
  for (const auto index : change.old) {
    if (!is_served(models_[index].config->name, models_[index].config->version))
      note_unloaded(index, "unloaded");
    end_model(index);
  }
  end_change(change, std::nullopt);
}

void node_state::add_model(const config::model_config& model, std::shared_ptr<const void> files,
                           stage is) {
  auto& made = models_.emplace_back();
  made.config = std::make_shared<const config::model_config>(model);
  made.triton = std::make_shared<const config::triton_model>(model.triton);
  made.files = std::move(files);
  made.is = is;
  made.created = std::time(nullptr);
}

/// The new ones load beside the old, which serve until all of the new can.
void node_state::start_change(model_change& change) {
  auto alone = options_.cluster;
  alone.models = served_of(*change.loaded);
  alone.older_versions.clear();
  const auto first = models_.size();
  for (const auto& model : alone.models) {
    change.next.push_back(models_.size());
    add_model(model, change.loaded->files, change.old.empty() ? stage::serving : stage::coming);
    // Requests of one generation stay with it: another one may have other words and weights.
    models_.back().route = fmt::format("{}/{}#{}", model.name, model.version, models_.size());
    std::erase_if(unloaded_, [&](const unloaded_model& m) {
      return m.name == model.name && m.version == model.version;
    });
    start_backend(models_.size() - 1);
  }
  if (change.loaded->engines.empty())
    return;
  for (auto where : place(alone)) {
    where.model += first;
    start_replica(where);
  }
}

/// Whether what is loaded serves. One version that does not load ends the change.
bool node_state::has_come(model_change& change) {
  if (change.next.empty())
    return true;
  bool ready = true;
  for (const auto index : change.next) {
    const auto stand = stand_alone(index);
    if (stand.state == "failed") {
      give_up(change, index, stand);
      return false;
    }
    ready = ready && stand.state == "ready";
  }
  if (ready)
    take_over(change);
  return ready;
}

/// What served before goes on.
void node_state::give_up(model_change& change, std::size_t failed, const standing& stand) {
  const auto version = models_[failed].config->version;
  for (const auto index : change.next) {
    if (change.old.empty())
      note_unloaded(index, index == failed
                               ? stand.note
                               : fmt::format("version {} did not load, and a policy's versions "
                                             "are loaded together",
                                             version));
    end_model(index);
  }
  const auto which = change.next.size() > 1 ? fmt::format("version {}: ", version) : std::string{};
  end_change(change, error{errc::internal, fmt::format("failed to load '{}', {}{}", change.name,
                                                       which, stand.note)});
}

/// From now on the new versions are those that are seen.
void node_state::take_over(model_change& change) {
  for (const auto index : std::exchange(change.next, {}))
    models_[index].is = stage::serving;
  for (const auto index : change.old)
    start_leaving(index);
  publish();
}

/// Nobody gets its lease any more; those who have it may ask it still, and wait for answers.
void node_state::start_leaving(std::size_t index) {
  auto& model = models_[index];
  model.is = stage::leaving;
  model.users = std::exchange(model.lease, nullptr);
}

bool node_state::has_left(std::size_t index) const { return models_[index].users.expired(); }

bool node_state::is_served(const std::string& name, std::uint64_t version) const {
  return std::any_of(models_.begin(), models_.end(), [&](const model_part& m) {
    return m.is == stage::serving && m.config->name == name && m.config->version == version;
  });
}

/// Ends the actors of a model; its place in the list stays, because others are known by theirs.
void node_state::end_model(std::size_t index) {
  auto& model = models_[index];
  model.is = stage::gone;
  model.backend_ready = false;
  if (auto backend = std::exchange(model.backend, nullptr))
    caf::anon_send_exit(backend, caf::exit_reason::user_shutdown);
  const error why{errc::peer_down, fmt::format("model '{}' was unloaded", model.config->name)};
  std::erase_if(replicas_, [&](const auto& item) {
    if (item.second.where.model != index)
      return false;
    for (const auto& [hub, router] : routers())
      tell(self_, router, detach_atom::value, item.first, to_caf(why));
    self_->demonitor(item.second.supervisor->address());
    caf::anon_send_exit(item.second.supervisor, caf::exit_reason::user_shutdown);
    options_.metrics->close_replica(model.config->name, std::to_string(value(item.first)));
    return true;
  });
  // What is left in the list is small, however often a model is loaded again.
  model_part left{.config = name_of(model), .is = stage::gone, .lease = nullptr};
  std::swap(model, left);
}

/// What is told of a model that is gone: one of a version, for all of its places in the list.
std::shared_ptr<const config::model_config> node_state::name_of(const model_part& model) const {
  for (const auto& other : models_)
    if (other.is == stage::gone && other.config->name == model.config->name &&
        other.config->version == model.config->version && other.config != model.config)
      return other.config;
  config::model_config name;
  name.name = model.config->name;
  name.version = model.config->version;
  return std::make_shared<const config::model_config>(std::move(name));
}

void node_state::note_unloaded(std::size_t index, std::string reason) {
  const auto& model = *models_[index].config;
  std::erase_if(unloaded_, [&](const unloaded_model& m) {
    return m.name == model.name && m.version == model.version;
  });
  unloaded_.push_back({model.name, model.version, std::move(reason)});
}

void node_state::end_change(model_change& change, const std::optional<error>& why) {
  change.ended = true;
  // Whoever has the answer sees what it says.
  publish();
  if (why)
    change.answer.deliver(to_caf(*why));
  else
    change.answer.deliver(change.loaded ? change.loaded->description.versions.back() : 0);
  log_info("model {}: {}", change.name,
           why             ? why->note
           : change.loaded ? std::string{"loaded"}
                           : std::string{"unloaded"});
}

} // namespace troupe::actors
