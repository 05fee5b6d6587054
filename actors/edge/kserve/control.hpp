#pragma once

#include "actors/edge/exchange.hpp"
#include "actors/edge/kserve/service.hpp"

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <variant>

namespace troupe::actors::kserve {

/// A parameter of a load or unload request; contents of files as they are.
using order_value = std::variant<std::monostate, bool, std::string>;

/// Adds "config", "file:<version>/<path>" or "unload_dependents" to an order.
/// @errors invalid_arg: another name, or not of its type
[[nodiscard]] outcome<void> add_parameter(model_order& order, const std::string& name,
                                          order_value value);

/// A request may name a repository; there is one here, which has no name.
/// @errors unsupported: it names one
[[nodiscard]] outcome<void> only_repository(std::string_view name);

/// For model_order::done: `then` is called exactly once, also where the order gets lost because the
/// node ends.
[[nodiscard]] std::function<void(const result<void>&)>
answer_once(std::function<void(const result<void>&)> then);

/// What the body of a load or unload request asks of a model: "parameters" with "config",
/// "file:<version>/<path>" in base64, and "unload_dependents".
/// @errors invalid_arg: not of this form
[[nodiscard]] outcome<model_order> read_order(std::string_view body, bool load,
                                              std::string_view model);

/// Carries the order out; the answer comes when the model is ready, or has ended its last request.
[[nodiscard]] std::unique_ptr<exchange>
order_exchange(std::shared_ptr<service> around, model_order order, std::function<void()> wake);

} // namespace troupe::actors::kserve
