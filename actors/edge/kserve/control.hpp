#pragma once

#include "actors/edge/exchange.hpp"
#include "actors/edge/kserve/service.hpp"

#include <functional>
#include <memory>
#include <string_view>

namespace troupe::actors::kserve {

/// What the body of a load or unload request asks of a model: "parameters" with "config",
/// "file:<version>/<path>" in base64, and "unload_dependents".
/// @errors invalid_arg: not of this form
[[nodiscard]] outcome<model_order> read_order(std::string_view body, bool load,
                                              std::string_view model);

/// Carries the order out; the answer comes when the model is ready, or has ended its last request.
[[nodiscard]] std::unique_ptr<exchange>
order_exchange(std::shared_ptr<service> around, model_order order, std::function<void()> wake);

} // namespace troupe::actors::kserve
