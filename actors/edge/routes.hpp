#pragma once

#include "actors/edge/kserve/paths.hpp"

#include <optional>
#include <string>
#include <string_view>

namespace troupe::actors {

enum class route_id {
  completions,
  chat,
  models,
  model,
  health,
  ready,
  metrics,
  version,
  status,
  drain,
  kill,
  kserve,
  unknown,
};

/// Where a request goes.
struct route {
  route_id id = route_id::unknown;
  /// The path as metrics and logs know it; never what a client sent.
  std::string_view label = "unknown";
  /// The Allow header: the methods of this path.
  std::string_view allow;
  /// Whether a key is needed when the edge has keys.
  bool guarded = true;
  /// What follows the path of a prefix route, percent-decoded.
  std::string rest;
  /// With route_id::kserve: what is asked for.
  std::optional<kserve::path> v2;
  /// The path lies below /v2: errors have KServe's form, whatever becomes of it.
  bool below_v2 = false;
};

/// Finds the route of a request target, which may be a whole address; host and query are ignored.
[[nodiscard]] route find_route(std::string_view target);

/// Whether the route takes this method. HEAD goes wherever GET goes.
[[nodiscard]] bool takes(const route& r, std::string_view method);

} // namespace troupe::actors
