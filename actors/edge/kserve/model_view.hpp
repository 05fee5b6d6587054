#pragma once

#include "actors/edge/kserve/inference.hpp"
#include "actors/front_desk.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::actors::kserve {

/// A declared input or output.
struct tensor_spec {
  std::string name;
  datatype type = datatype::bytes;
  /// -1 takes any size.
  std::vector<std::int64_t> dims;
  bool optional = false;
};

/// What a model declares: the completed configuration as far as a protocol needs it.
struct signature {
  std::string platform;
  std::string backend;
  std::int64_t max_batch_size = 0;
  bool decoupled = true;
  std::vector<tensor_spec> inputs;
  std::vector<tensor_spec> outputs;
};

/// The inputs and outputs of Triton's vLLM backend, which the engine's own backend serves.
[[nodiscard]] std::shared_ptr<const signature> text_signature();

/// One version of one model as the protocols see it.
struct model_view {
  std::string name;
  std::string version;
  std::shared_ptr<const signature> shape;
  /// Empty unless the model can serve now.
  backend_actor backend;
  /// "READY", "LOADING", "UNAVAILABLE", as in the repository's index.
  std::string state;
  std::string reason;
};

[[nodiscard]] model_view view_of(const model_entry& model);

/// The model that answers to `name`, whatever its state.
/// @errors not_found: no such model or version
[[nodiscard]] outcome<model_view> find_version(const front_view& view, std::string_view name,
                                               std::string_view version);
/// The same, fit to serve.
/// @errors and unavailable: loading, restarting, failed, or the node drains
[[nodiscard]] outcome<model_view> find_ready(const front_view& view, std::string_view name,
                                             std::string_view version);

/// The answer to a metadata request and the model configuration, as JSON.
[[nodiscard]] std::string metadata_json(const model_view& model);
[[nodiscard]] std::string config_json(const model_view& model);

/// Checks names, types, shapes and data of a request against what the model declares.
[[nodiscard]] outcome<void> check_request(const infer_request& request, const model_view& model);

} // namespace troupe::actors::kserve
