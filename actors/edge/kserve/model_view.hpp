#pragma once

#include "actors/edge/kserve/inference.hpp"
#include "actors/front_desk.hpp"
#include "troupe/config/triton.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::actors::kserve {

/// One version of one model as the protocols see it.
struct model_view {
  std::string name;
  std::string version;
  /// What it declares; never null.
  std::shared_ptr<const config::triton_model> declared;
  /// Empty unless the model can serve now.
  backend_actor backend;
  /// As model_entry::door.
  std::shared_ptr<request_door> door;
  /// "READY", "LOADING", "UNAVAILABLE", as in the repository's index.
  std::string state;
  std::string reason;
  /// As model_entry::lease.
  std::shared_ptr<const void> lease;
};

[[nodiscard]] model_view view_of(const model_entry& model);

/// The protocol's type of a declared tensor.
[[nodiscard]] datatype type_of(const config::tensor_config& tensor);

/// The model that answers to `name`, whatever its state.
/// @errors not_found: no such model or version
[[nodiscard]] outcome<model_view> find_version(const front_view& view, std::string_view name,
                                               std::string_view version);
/// The same, fit to serve.
/// @errors and unavailable: loading, restarting, failed, or the node drains
[[nodiscard]] outcome<model_view> find_ready(const front_view& view, std::string_view name,
                                             std::string_view version);

/// The versions that a statement about `name` without a version is about: those that are ready, or
/// all where none is.
[[nodiscard]] std::vector<std::string> versions_of(const front_view& view, std::string_view name);

/// The answer to a metadata request, as JSON.
[[nodiscard]] std::string metadata_json(const model_view& model,
                                        const std::vector<std::string>& versions);

/// Checks names, types, shapes and data of a request against what the model declares.
[[nodiscard]] outcome<void> check_request(const infer_request& request, const model_view& model);

} // namespace troupe::actors::kserve
