#pragma once

#include "actors/metrics/metrics.hpp"
#include "troupe/actors/backend_api.hpp"
#include "troupe/config/triton.hpp"

#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace troupe::actors {

/// What the process does for one model's library.
class library_host final : public backends::host {
public:
  library_host(std::string model, std::shared_ptr<metrics> numbers)
      : model_{std::move(model)}, numbers_{std::move(numbers)} {}

  void log(backends::log_severity severity, std::string_view text) override;
  void count(std::string_view metric, double by) override;
  void measure(std::string_view metric, double value) override;

private:
  std::string model_;
  std::shared_ptr<metrics> numbers_;
};

/// What a library is told of a model.
[[nodiscard]] backends::model_facts facts_of(const config::triton_model& model,
                                             std::uint64_t version, std::uint32_t instance);

/// Calls into a library: what it throws is an error.
template <class F>
[[nodiscard]] result<void> guarded(const std::string& where, F&& call) try {
  return std::forward<F>(call)();
} catch (const std::exception& e) {
  return fail(errc::internal, where + " threw: " + e.what());
} catch (...) {
  return fail(errc::internal, where + " threw something that is no std::exception");
}

} // namespace troupe::actors
