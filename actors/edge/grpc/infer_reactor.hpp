#pragma once

#include "actors/edge/grpc/surroundings.hpp"
#include "actors/edge/kserve/call.hpp"

#include "proto/kserve.pb.h"

#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <memory>
#include <mutex>

namespace troupe::actors::kserve {

/// One ModelInfer. It keeps itself alive until gRPC is done with it.
class infer_reactor final : public ::grpc::ServerUnaryReactor {
public:
  /// Asks the backend, or ends the call at once with the refusal.
  [[nodiscard]] static ::grpc::ServerUnaryReactor* open(surroundings& edge,
                                                        const inference::ModelInferRequest& request,
                                                        inference::ModelInferResponse& response);

  explicit infer_reactor(inference::ModelInferResponse& response) : response_{response} {}

  /// Sends what has come. From the edge's thread, or from the backend's once begin() has ended.
  void pump();

private:
  void begin(surroundings& edge, const inference::ModelInferRequest& request,
             std::weak_ptr<infer_reactor> self);
  void end(const ::grpc::Status& status);
  void OnCancel() override;
  void OnDone() override { const auto last = std::move(self_); }

  std::shared_ptr<infer_reactor> self_;
  std::mutex mutex_;
  inference::ModelInferResponse& response_;
  std::unique_ptr<call> call_;
  std::atomic<bool> begun_ = false;
  bool finished_ = false;
};

} // namespace troupe::actors::kserve
