#include "actors/edge/kserve/control.hpp"

#include "actors/edge/json_body.hpp"
#include "actors/edge/kserve/http.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>
#include <openssl/evp.h>

#include <mutex>
#include <optional>
#include <utility>

namespace troupe::actors::kserve {

namespace {

constexpr std::string_view file_prefix = "file:";
constexpr std::size_t base64_group = 4;

std::optional<std::string> decode_base64(const std::string& text) {
  if (text.size() % base64_group != 0)
    return std::nullopt;
  std::string out(text.size() / base64_group * 3, '\0');
  const auto written = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                       reinterpret_cast<const unsigned char*>(text.data()),
                                       static_cast<int>(text.size()));
  if (written < 0)
    return std::nullopt;
  // It writes a zero for each sign of padding.
  const auto last = text.find_last_not_of('=');
  const auto padding = last == std::string::npos ? text.size() : text.size() - last - 1;
  if (padding > 2)
    return std::nullopt;
  out.resize(static_cast<std::size_t>(written) - padding);
  return out;
}

outcome<void> read_parameter(const std::string& name, const nlohmann::json& value,
                             model_order& order) {
  if (name == "unload_dependents") {
    // Ensembles alone have dependents, and there are none here.
    return value.is_boolean() ? outcome<void>{} : refuse("'unload_dependents' must be a boolean");
  }
  if (!order.load)
    return refuse(fmt::format("unexpected parameter '{}' of an unload request; it takes "
                              "'unload_dependents'",
                              name.substr(0, 64)));
  if (!value.is_string())
    return refuse(fmt::format("the parameter '{}' must be a string", name.substr(0, 64)));
  const auto& text = value.get_ref<const std::string&>();
  if (name == "config") {
    order.overrides.config = text;
    return {};
  }
  if (!name.starts_with(file_prefix))
    return refuse(fmt::format("unexpected parameter '{}' of a load request; it takes 'config' and "
                              "'file:<version>/<path>'",
                              name.substr(0, 64)));
  auto bytes = decode_base64(text);
  if (!bytes)
    return refuse(fmt::format("the parameter '{}' is not base64", name.substr(0, 64)));
  order.overrides.files[name.substr(file_prefix.size())] = std::move(*bytes);
  return {};
}

/// What the order's end leaves for the connection.
struct ending {
  std::mutex mutex;
  std::optional<result<void>> done;
};

class running_order final : public exchange {
public:
  running_order(std::shared_ptr<service> around, model_order order, std::function<void()> wake)
      : around_{std::move(around)}, order_{std::make_shared<model_order>(std::move(order))} {
    order_->done = [ending = ending_, wake = std::move(wake)](const result<void>& done) {
      {
        const std::lock_guard lock{ending->mutex};
        ending->done = done;
      }
      wake();
    };
  }

  void begin() override { around_->control(std::move(order_)); }

  output take() override {
    output out;
    const std::lock_guard lock{ending_->mutex};
    if (!ending_->done)
      return out;
    out.end = true;
    out.whole = *ending_->done ? reply{} : failure_reply(to_failure(ending_->done->error()));
    return out;
  }

private:
  std::shared_ptr<service> around_;
  std::shared_ptr<ending> ending_ = std::make_shared<ending>();
  std::shared_ptr<model_order> order_;
};

} // namespace

outcome<model_order> read_order(std::string_view body, bool load, std::string_view model) {
  model_order order;
  order.load = load;
  order.name = model;
  if (body.empty())
    return order;
  const auto asked = parse_body(body);
  if (!asked)
    return refuse(asked.error().message);
  const auto parameters = asked->find("parameters");
  if (parameters == asked->end())
    return order;
  if (!parameters->is_object())
    return refuse("'parameters' must be an object");
  for (const auto& [name, value] : parameters->items())
    if (auto good = read_parameter(name, value, order); !good)
      return tl::unexpected<failure>(std::move(good.error()));
  return order;
}

std::unique_ptr<exchange> order_exchange(std::shared_ptr<service> around, model_order order,
                                         std::function<void()> wake) {
  return std::make_unique<running_order>(std::move(around), std::move(order), std::move(wake));
}

} // namespace troupe::actors::kserve
