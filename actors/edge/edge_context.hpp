#pragma once

#include "actors/edge/api_keys.hpp"
#include "actors/edge/http_options.hpp"
#include "actors/edge/http_text.hpp"
#include "actors/edge/kserve/service.hpp"
#include "actors/edge/routes.hpp"
#include "actors/front_desk.hpp"
#include "actors/metrics/metrics.hpp"

#include <memory>
#include <optional>
#include <string_view>

namespace troupe::actors {

/// What all connections of one edge share; nobody changes it after the start.
struct edge_context {
  http_options options;
  std::shared_ptr<front_desk> desk;
  std::shared_ptr<metrics> numbers;
  std::optional<api_keys> keys;
  /// What all KServe edges of the process share.
  std::shared_ptr<kserve::service> kserve;

  /// find_route(), as far as this edge goes.
  [[nodiscard]] route route_of(std::string_view target) const {
    auto found = find_route(target);
    return options.only_metrics && found.id != route_id::metrics ? route{} : found;
  }
};

/// Answers a request that needs no backend. `r` is a known route that takes the method.
[[nodiscard]] reply answer_plain(const edge_context& edge, const route& r, std::string_view body);

/// The model that a request names, fit to serve it now.
/// @errors 404: no such model; 503: draining, loading, restarting or failed
[[nodiscard]] checked<model_entry> pick_model(const front_view& view, const std::string& name);

} // namespace troupe::actors
