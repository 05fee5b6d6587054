#pragma once

#include "actors/edge/kserve/tensor.hpp"

#include "proto/kserve.pb.h"

#include <string>

namespace troupe::actors::kserve {

/// The data of a tensor whose elements stand one by one in the message.
/// @errors invalid_arg: members that do not fit the type, or a number out of its range
[[nodiscard]] outcome<std::string> data_of(const inference::InferTensorContents& contents,
                                           datatype type, const std::string& name);

} // namespace troupe::actors::kserve
