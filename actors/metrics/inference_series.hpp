#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace troupe::actors {

struct inference_done;

/// Triton's nv_inference_* metrics of every version of every model. Durations run to the final
/// response. Not thread-safe.
class inference_series {
public:
  explicit inference_series(prometheus::Registry& registry) : registry_{registry} {}

  /// All of them at zero.
  void open(std::string_view model, std::string_view version) { (void)of(model, version); }
  void pending(std::string_view model, std::string_view version, int change);
  void succeeded(std::string_view model, std::string_view version, const inference_done& done);
  void executed(std::string_view model, std::string_view version);
  void failed(std::string_view model, std::string_view version, std::string_view reason);

private:
  struct row;
  [[nodiscard]] row& of(std::string_view model, std::string_view version);

  prometheus::Registry& registry_;
  std::map<std::pair<std::string, std::string>, std::shared_ptr<row>> rows_;
};

} // namespace troupe::actors
