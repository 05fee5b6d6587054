#pragma once

#include "actors/edge/grpc/surroundings.hpp"
#include "actors/edge/kserve/call.hpp"

#include "proto/kserve.pb.h"

#include <grpcpp/support/server_callback.h>

#include <deque>
#include <memory>
#include <mutex>
#include <vector>

namespace troupe::actors::kserve {

/// One ModelStreamInfer: many requests, each answered by responses of which exactly one has
/// triton_final_response. It keeps itself alive until gRPC is done with it.
///
/// One read and one write are outstanding at most. While a write is, what the backends have stays
/// in the calls' inboxes, merged, so that a slow reader costs its answers and no more; and no
/// request is read while many refusals wait for it.
class stream_reactor final : public ::grpc::ServerBidiReactor<inference::ModelInferRequest,
                                                              inference::ModelStreamInferResponse> {
public:
  [[nodiscard]] static stream_reactor* open(std::shared_ptr<surroundings> edge,
                                            const ::grpc::CallbackServerContext& context);

  stream_reactor(std::shared_ptr<surroundings> edge, bool errors_end);

  /// Sends what has come. From the edge's thread.
  void pump();
  /// Takes no further request; ends behind the last response.
  void wind_down();

private:
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  void accept();
  void refuse_request(failure why, infer_response as);
  [[nodiscard]] bool has_room() const;
  void collect();
  void advance();
  void write_next();
  void end(const ::grpc::Status& status);

  const std::shared_ptr<surroundings> edge_;
  /// Of metadata triton_grpc_error: an error ends the stream as its status.
  const bool errors_end_;
  std::shared_ptr<stream_reactor> self_;

  std::mutex mutex_;
  inference::ModelInferRequest request_;
  inference::ModelStreamInferResponse message_;
  std::vector<std::unique_ptr<call>> calls_;
  std::deque<infer_response> ready_;
  bool reading_ = true;
  bool read_all_ = false;
  bool writing_ = false;
  /// The first write is done.
  bool written_ = false;
  bool winding_down_ = false;
  bool finished_ = false;
};

} // namespace troupe::actors::kserve
