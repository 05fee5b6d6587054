#pragma once

#include "actors/backend/engine_backend.hpp"
#include "actors/backend/library.hpp"
#include "actors/backend/library_host.hpp"

#include <memory>

namespace troupe::actors {

/// The engine's own backend with a library's class around it: every call goes to that class, which
/// reaches the engine's half through engine_base.
class hybrid_backend final : public backend {
public:
  explicit hybrid_backend(std::shared_ptr<metrics> numbers) : numbers_{std::move(numbers)} {}

  [[nodiscard]] result<config::model_config>
  auto_complete_config(config::model_config given) override;
  [[nodiscard]] result<void> initialize(const config::model_config& model,
                                        engine_port& engine) override;
  void execute(inference_request_ptr request, response_sink_ptr sink) override;
  void finalize() override;

private:
  /// What the class calls instead of itself.
  class base_half final : public backends::engine_base {
  public:
    explicit base_half(hybrid_backend& whole) : whole_{whole} {}
    [[nodiscard]] result<void> initialize() override;
    void execute(inference_request_ptr request, response_sink_ptr sink) override;
    void finalize() override;

  private:
    hybrid_backend& whole_;
  };

  /// Between the engine's half and the engine: whatever sink the class gave, a request belongs to
  /// the client whose request the class executes, who may abandon it.
  class client_port final : public engine_port {
  public:
    explicit client_port(hybrid_backend& whole) : whole_{whole} {}
    void submit(engine::submission request, std::shared_ptr<token_stream> stream,
                response_sink_ptr owner) override;

  private:
    hybrid_backend& whole_;
  };

  std::shared_ptr<metrics> numbers_;
  std::unique_ptr<library_host> host_;
  engine_backend own_;
  base_half base_{*this};
  client_port port_{*this};
  std::unique_ptr<backends::engine_backend> class_;
  config::model_config model_;
  engine_port* engine_ = nullptr;
  response_sink_ptr client_;
};

} // namespace troupe::actors
