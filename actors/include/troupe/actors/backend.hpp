#pragma once

#include "troupe/actors/inference.hpp"
#include "troupe/actors/messages.hpp"
#include "troupe/base/error.hpp"

#include <memory>

namespace troupe::config {
struct model_config;
}

namespace troupe::actors {

/// Takes the tokens of one request inside a backend. Called from the backend's thread.
class token_stream {
public:
  virtual ~token_stream() = default;
  virtual void on_accepted(const accepted& taken) = 0;
  /// The request was refused, or what served it is gone. No call follows.
  virtual void on_failed(const error& why) = 0;
  /// The next tokens. Returns false when the stream wants no more: the rest is cancelled.
  [[nodiscard]] virtual bool on_chunk(const engine::token_chunk& chunk) = 0;
};

/// The way from a backend to the engine half of its model.
class engine_port {
public:
  virtual ~engine_port() = default;
  /// Sends a request through the router; everything that comes of it goes to `stream`, which is
  /// held until the last chunk. `owner` names the request for abandon(): the sink of the client.
  virtual void submit(engine::submission request, std::shared_ptr<token_stream> stream,
                      response_sink_ptr owner) = 0;
};

/// What serves one model in one front process, between text and tokens: Triton's life cycle. The
/// engine's own backend is the first; others may inherit from it or stand alone. All functions of
/// one instance are called from one thread, which may block.
class backend {
public:
  virtual ~backend() = default;
  /// Fills in what the user left open; runs once a model, before initialize. What the user wrote
  /// wins.
  [[nodiscard]] virtual result<config::model_config>
  auto_complete_config(config::model_config given) = 0;
  /// Loads what execute needs. `engine` outlives the backend.
  [[nodiscard]] virtual result<void> initialize(const config::model_config& model,
                                                engine_port& engine) = 0;
  /// Serves one request: every outcome, errors included, goes to `sink`; returns without waiting
  /// for it.
  virtual void execute(inference_request_ptr request, response_sink_ptr sink) = 0;
  /// The last call; requests still running end with an error after it.
  virtual void finalize() = 0;
};

} // namespace troupe::actors
