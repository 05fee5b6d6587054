#pragma once

#include "actors/edge/kserve/service.hpp"

#include "proto/kserve.pb.h"

#include <grpcpp/support/status.h>

namespace troupe::actors::kserve {

// The answers that need no backend: one function for each method.

using ::grpc::Status;
namespace pb = inference;

Status answer(service& around, const pb::ServerLiveRequest& in, pb::ServerLiveResponse& out);
Status answer(service& around, const pb::ServerReadyRequest& in, pb::ServerReadyResponse& out);
Status answer(service& around, const pb::ModelReadyRequest& in, pb::ModelReadyResponse& out);
Status answer(service& around, const pb::ServerMetadataRequest& in,
              pb::ServerMetadataResponse& out);
Status answer(service& around, const pb::ModelMetadataRequest& in, pb::ModelMetadataResponse& out);
Status answer(service& around, const pb::ModelConfigRequest& in, pb::ModelConfigResponse& out);
Status answer(service& around, const pb::ModelStatisticsRequest& in,
              pb::ModelStatisticsResponse& out);
Status answer(service& around, const pb::RepositoryIndexRequest& in,
              pb::RepositoryIndexResponse& out);
Status answer(service& around, const pb::SystemSharedMemoryStatusRequest& in,
              pb::SystemSharedMemoryStatusResponse& out);
Status answer(service& around, const pb::SystemSharedMemoryRegisterRequest& in,
              pb::SystemSharedMemoryRegisterResponse& out);
Status answer(service& around, const pb::SystemSharedMemoryUnregisterRequest& in,
              pb::SystemSharedMemoryUnregisterResponse& out);
Status answer(service& around, const pb::CudaSharedMemoryStatusRequest& in,
              pb::CudaSharedMemoryStatusResponse& out);
Status answer(service& around, const pb::CudaSharedMemoryRegisterRequest& in,
              pb::CudaSharedMemoryRegisterResponse& out);
Status answer(service& around, const pb::CudaSharedMemoryUnregisterRequest& in,
              pb::CudaSharedMemoryUnregisterResponse& out);
Status answer(service& around, const pb::TraceSettingRequest& in, pb::TraceSettingResponse& out);
Status answer(service& around, const pb::LogSettingsRequest& in, pb::LogSettingsResponse& out);

} // namespace troupe::actors::kserve
