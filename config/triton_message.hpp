#pragma once

#include "proto/model_config.pb.h"
#include "troupe/config/triton.hpp"

namespace troupe::config {

/// The completed configuration as the message of gRPC's ModelConfig answer.
[[nodiscard]] inference::ModelConfig to_message(const triton_model& model);

} // namespace troupe::config
