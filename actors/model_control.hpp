#pragma once

#include "troupe/base/error.hpp"
#include "troupe/config/load.hpp"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace troupe::actors {

/// A request of the repository protocol: load a model (again), or unload it.
struct model_order {
  bool load = true;
  std::string name;
  config::model_overrides overrides;
  /// Called once when it is carried out or refused, on any thread; it must not block.
  std::function<void(const result<void>&)> done;
};

/// The models of the repository that were unloaded, or that did not load, and why.
struct unloaded_model {
  std::string name;
  std::uint64_t version = 0;
  std::string reason;
};

/// How edges reach whoever loads and unloads models. Thread-safe.
struct model_control {
  /// Takes orders in the explicit mode; empty in the others.
  std::function<void(std::shared_ptr<const model_order>)> order;
};

} // namespace troupe::actors
