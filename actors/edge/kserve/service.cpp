#include "actors/edge/kserve/service.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <utility>

namespace troupe::actors::kserve {

namespace {

using json = nlohmann::ordered_json;

constexpr std::chrono::seconds ready_window{30};

/// Models that nobody serves: those that were unloaded with the reason, the others by name alone,
/// as Triton says them.
void add_unloaded(json& all, const front_view& view, const std::vector<std::string>& repository) {
  for (const auto& m : view.unloaded)
    all.push_back({{"name", m.name},
                   {"version", std::to_string(m.version)},
                   {"state", "UNAVAILABLE"},
                   {"reason", m.reason}});
  for (const auto& name : repository)
    if (std::none_of(all.begin(), all.end(), [&](const json& m) {
          return m["name"].get_ref<const std::string&>() == name;
        }))
      all.push_back({{"name", name}});
}

} // namespace

service::service(std::shared_ptr<front_desk> desk, std::shared_ptr<metrics> numbers)
    : desk_{std::move(desk)}, numbers_{std::move(numbers)}, counts_{std::make_shared<statistics>(
                                                                numbers_)} {}

std::string service::server_json() const {
  return json{
      {"name", server_name},
      {"version", server_version},
      {"extensions",
       {"classification", "sequence", "model_repository", "model_repository(unload_dependents)",
        "schedule_policy", "model_configuration", "system_shared_memory", "cuda_shared_memory",
        "binary_tensor_data", "parameters", "statistics", "trace", "logging"}}}
      .dump();
}

bool service::ready() const { return desk_->ready(std::chrono::steady_clock::now(), ready_window); }

outcome<void> service::knows(std::string_view model) const {
  if (model.empty())
    return {};
  const auto found = find_version(*desk_->view(), model, {});
  return found ? outcome<void>{} : tl::unexpected<failure>(found.error());
}

bool service::model_ready(std::string_view model, std::string_view version) const {
  return find_ready(*desk_->view(), model, version).has_value();
}

outcome<std::string> service::metadata(std::string_view model, std::string_view version) const {
  const auto view = desk_->view();
  const auto found = find_version(*view, model, version);
  if (!found)
    return tl::unexpected<failure>(found.error());
  return metadata_json(*found,
                       version.empty() ? versions_of(*view, model) : std::vector{found->version});
}

outcome<std::string> service::config(std::string_view model, std::string_view version) const {
  return find_version(*desk_->view(), model, version).map([](const model_view& found) {
    return found.declared->to_json();
  });
}

outcome<std::string> service::statistics_json(std::string_view model,
                                              std::string_view version) const {
  const auto view = desk_->view();
  std::vector<statistics::key> keys;
  if (!model.empty()) {
    const auto found = find_version(*view, model, version);
    if (!found)
      return tl::unexpected<failure>(found.error());
    const auto wanted = version.empty() ? versions_of(*view, model) : std::vector{found->version};
    for (const auto& one : wanted)
      keys.emplace_back(found->name, one);
  } else {
    for (const auto& m : view->models)
      keys.emplace_back(m.name, std::to_string(m.version));
  }
  return counts_->json(keys);
}

std::string service::index(bool ready_only) const {
  auto all = json::array();
  // Held: the node publishes the next one meanwhile.
  const auto view = desk_->view();
  for (const auto& entry : view->models) {
    const auto m = view_of(entry);
    if (!ready_only || m.state == "READY")
      all.push_back(
          {{"name", m.name}, {"version", m.version}, {"state", m.state}, {"reason", m.reason}});
  }
  if (!ready_only)
    add_unloaded(all, *view, *desk_->repository());
  return all.dump(-1, ' ', false, json::error_handler_t::replace);
}

outcome<void> service::may_control() const {
  const auto control = desk_->control();
  return control && control->order ? outcome<void>{} : refuse_control();
}

void service::control(std::shared_ptr<const model_order> order) const {
  if (const auto control = desk_->control(); control && control->order)
    return control->order(std::move(order));
  order->done(fail(errc::busy, refuse_control().error().text));
}

outcome<void> service::refuse_control() {
  return refuse(failure_code::unavailable,
                "explicit model load / unload is not allowed if polling is enabled");
}

} // namespace troupe::actors::kserve
