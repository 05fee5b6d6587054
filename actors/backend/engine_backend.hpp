#pragma once

#include "actors/backend/front_half.hpp"
#include "troupe/actors/backend.hpp"

#include <memory>

namespace troupe::actors {

/// The engine's own backend: text or messages -> token ids -> the engine half through the router ->
/// text.
class engine_backend : public backend {
public:
  [[nodiscard]] result<config::model_config>
  auto_complete_config(config::model_config given) override;
  [[nodiscard]] result<void> initialize(const config::model_config& model,
                                        engine_port& engine) override;
  void execute(inference_request_ptr request, response_sink_ptr sink) override;
  void finalize() override;

private:
  std::shared_ptr<const front_half> front_;
  engine_port* engine_ = nullptr;
  splitmix64 seeds_{0};
};

[[nodiscard]] std::unique_ptr<backend> make_engine_backend();

} // namespace troupe::actors
