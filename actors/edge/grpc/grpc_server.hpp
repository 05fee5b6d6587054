#pragma once

#include "actors/edge/grpc/grpc_options.hpp"
#include "actors/edge/kserve/service.hpp"
#include "troupe/base/error.hpp"

#include <chrono>
#include <cstdint>
#include <memory>

namespace troupe::actors {

/// KServe's GRPCInferenceService. gRPC's own threads carry calls in and out; a thread of ours hands
/// on what the backends have for them, so that no backend waits for a socket.
class grpc_server {
public:
  /// Binds and listens; calls are served when it returns.
  /// @errors as spawn_grpc_edge
  [[nodiscard]] static result<std::unique_ptr<grpc_server>>
  start(const grpc_options& options, std::shared_ptr<kserve::service> kserve);

  /// stop(0).
  ~grpc_server();
  grpc_server(const grpc_server&) = delete;
  grpc_server& operator=(const grpc_server&) = delete;

  [[nodiscard]] std::uint16_t port() const noexcept;
  /// Streams take no further requests and end behind their last response. Thread-safe.
  void wind_down();
  /// wind_down(), then waits for the calls in flight, at most `deadline`, and cuts the rest off
  /// (their requests are abandoned). Blocks; not from a thread of gRPC.
  void stop(std::chrono::milliseconds deadline);

  struct impl;
  explicit grpc_server(std::unique_ptr<impl> parts);

private:
  std::unique_ptr<impl> impl_;
};

} // namespace troupe::actors
