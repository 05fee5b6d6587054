#pragma once

#include "actors/edge/kserve/inference.hpp"
#include "actors/edge/kserve/model_view.hpp"
#include "actors/edge/kserve/shared_memory.hpp"
#include "actors/edge/kserve/statistics.hpp"
#include "actors/front_desk.hpp"
#include "actors/metrics/metrics.hpp"

#include <atomic>
#include <memory>
#include <string>
#include <string_view>

namespace troupe::actors::kserve {

/// What the KServe front ends of one process share: one for all edges, and it outlives each of
/// them, so that statistics and registrations survive an edge's death. Thread-safe.
class service {
public:
  service(std::shared_ptr<front_desk> desk, std::shared_ptr<metrics> numbers);

  [[nodiscard]] const std::shared_ptr<front_desk>& desk() const noexcept { return desk_; }
  [[nodiscard]] const std::shared_ptr<statistics>& counts() const noexcept { return counts_; }
  [[nodiscard]] const std::shared_ptr<metrics>& numbers() const noexcept { return numbers_; }
  [[nodiscard]] shared_memory& memory() noexcept { return memory_; }

  /// The answers of the protocol that need no backend, as JSON in Triton's form.
  [[nodiscard]] std::string server_json() const;
  [[nodiscard]] bool live() const noexcept { return true; }
  [[nodiscard]] bool ready() const;
  /// Whether there is a model of this name; no name is no question.
  /// @errors not_found
  [[nodiscard]] outcome<void> knows(std::string_view model) const;
  [[nodiscard]] bool model_ready(std::string_view model, std::string_view version) const;
  [[nodiscard]] outcome<std::string> metadata(std::string_view model,
                                              std::string_view version) const;
  [[nodiscard]] outcome<std::string> config(std::string_view model, std::string_view version) const;
  /// Of one model, or of all with an empty name.
  [[nodiscard]] outcome<std::string> statistics_json(std::string_view model,
                                                     std::string_view version) const;
  /// A list of {"name", "version", "state", "reason"}; with `ready_only` of those that can serve.
  [[nodiscard]] std::string index(bool ready_only) const;
  /// Carries out an order of the repository protocol; its `done` hears how it went, at once where
  /// may_control() refuses.
  void control(std::shared_ptr<const model_order> order) const;
  /// Whether models are loaded and unloaded by request.
  /// @errors unavailable: they stay as they were at the start, or follow the files
  [[nodiscard]] outcome<void> may_control() const;
  /// What a front end that takes no orders answers.
  [[nodiscard]] static outcome<void> refuse_control();

private:
  std::shared_ptr<front_desk> desk_;
  std::shared_ptr<metrics> numbers_;
  std::shared_ptr<statistics> counts_;
  shared_memory memory_;
};

/// What /v2 says about this server.
inline constexpr std::string_view server_name = "triton";
inline constexpr std::string_view server_version = "2.73.0";

} // namespace troupe::actors::kserve
