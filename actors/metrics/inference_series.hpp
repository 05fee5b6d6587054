#pragma once

#include "troupe/base/clock.hpp"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace troupe::actors {

/// Triton's nv_inference_* metrics of every version of every model. Durations run to the final
/// response. Not thread-safe.
class inference_series {
public:
  explicit inference_series(prometheus::Registry& registry) : registry_{registry} {}

  void pending(std::string_view model, std::string_view version, int change);
  void succeeded(std::string_view model, std::string_view version, duration queue, duration infer);
  void failed(std::string_view model, std::string_view version, std::string_view reason);

private:
  struct row;
  [[nodiscard]] row& of(std::string_view model, std::string_view version);

  prometheus::Registry& registry_;
  std::map<std::pair<std::string, std::string>, std::shared_ptr<row>> rows_;
};

} // namespace troupe::actors
