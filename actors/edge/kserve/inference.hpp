#pragma once

#include "actors/edge/kserve/tensor.hpp"
#include "troupe/base/clock.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace troupe::actors::kserve {

using backends::parameter;
using backends::parameters;

/// An output that the client asked for.
struct wanted_output {
  std::string name;
  /// HTTP: behind the JSON instead of in it.
  bool binary = false;
  /// Where its data goes instead of the answer.
  std::optional<memory_place> memory;
};

/// One inference, as every protocol of the edge understands it.
struct infer_request {
  std::string model;
  /// Empty takes the one that the version policy offers.
  std::string version;
  std::string id;
  kserve::parameters parameters;
  std::vector<tensor> inputs;
  /// Empty: all that there are.
  std::vector<wanted_output> outputs;
  time_point arrival{};
};

/// One response. A request has any number of them and exactly one with `last`.
struct infer_response {
  std::string model;
  std::string version;
  std::string id;
  std::vector<tensor> outputs;
  kserve::parameters parameters;
  std::optional<failure> error;
  bool last = false;
};

/// "[request id: 7] ", as it stands before the sentence of a refused request.
[[nodiscard]] std::string id_prefix(const infer_request& request);

} // namespace troupe::actors::kserve
