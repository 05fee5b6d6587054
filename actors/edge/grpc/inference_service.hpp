#pragma once

#include "actors/edge/grpc/surroundings.hpp"

#include <grpcpp/impl/service_type.h>

#include <memory>

namespace troupe::actors::kserve {

/// The methods of GRPCInferenceService over what the edge shares.
[[nodiscard]] std::unique_ptr<::grpc::Service>
make_inference_service(std::shared_ptr<surroundings> edge);

} // namespace troupe::actors::kserve
