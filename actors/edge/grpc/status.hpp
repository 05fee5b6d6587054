#pragma once

#include "actors/edge/kserve/failure.hpp"

#include <grpcpp/support/status.h>

#include <string>

namespace troupe::actors::kserve {

/// Triton's map; UNSUPPORTED is UNIMPLEMENTED.
[[nodiscard]] ::grpc::Status to_status(const failure& f);

/// An error's sentence as a message may carry it: valid UTF-8, and not longer than clients take.
[[nodiscard]] std::string sentence(const failure& f);

} // namespace troupe::actors::kserve
