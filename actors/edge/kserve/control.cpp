#include "actors/edge/kserve/control.hpp"

#include "actors/edge/json_body.hpp"
#include "actors/edge/kserve/http.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>
#include <openssl/evp.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <utility>

namespace troupe::actors::kserve {

namespace {

constexpr std::string_view file_prefix = "file:";
constexpr std::size_t base64_group = 4;
constexpr std::size_t shown_max = 64;

std::string shown(const std::string& name) { return name.substr(0, shown_max); }

/// EVP_DecodeBlock reads padding and white space within a text as if they were data.
bool is_base64(std::string_view text) {
  const auto end = text.find('=');
  const auto padding = end == std::string_view::npos ? std::string_view{} : text.substr(end);
  const auto is_digit = [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '/';
  };
  return text.size() % base64_group == 0 &&
         (padding.empty() || padding == "=" || padding == "==") &&
         std::all_of(text.begin(),
                     text.begin() + static_cast<std::ptrdiff_t>(text.size() - padding.size()),
                     is_digit);
}

std::optional<std::string> decode_base64(const std::string& text) {
  if (!is_base64(text))
    return std::nullopt;
  std::string out(text.size() / base64_group * 3, '\0');
  const auto written = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                       reinterpret_cast<const unsigned char*>(text.data()),
                                       static_cast<int>(text.size()));
  if (written < 0)
    return std::nullopt;
  // It writes a zero for each sign of padding.
  const auto padding = std::count(text.begin(), text.end(), '=');
  out.resize(static_cast<std::size_t>(written - padding));
  return out;
}

/// The parameter as JSON carries it: contents of files in base64.
outcome<void> read_parameter(const std::string& name, const nlohmann::json& value,
                             model_order& order) {
  if (value.is_boolean())
    return add_parameter(order, name, value.get<bool>());
  if (!value.is_string())
    return add_parameter(order, name, std::monostate{});
  const auto& text = value.get_ref<const std::string&>();
  if (!name.starts_with(file_prefix))
    return add_parameter(order, name, text);
  auto bytes = decode_base64(text);
  if (!bytes)
    return refuse(fmt::format("the parameter '{}' is not base64", shown(name)));
  return add_parameter(order, name, std::move(*bytes));
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
    order_->done = answer_once([ending = ending_, wake = std::move(wake)](const auto& done) {
      {
        const std::lock_guard lock{ending->mutex};
        ending->done = done;
      }
      wake();
    });
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

/// Answers when it goes without having answered: whoever carried the order out is gone.
class pending_answer {
public:
  explicit pending_answer(std::function<void(const result<void>&)> then) : then_{std::move(then)} {}
  ~pending_answer() {
    if (!answered_.test_and_set())
      then_(fail(errc::draining, "the server is shutting down; the order was not carried out"));
  }
  pending_answer(const pending_answer&) = delete;
  pending_answer& operator=(const pending_answer&) = delete;

  void give(const result<void>& done) {
    if (!answered_.test_and_set())
      then_(done);
  }

private:
  std::function<void(const result<void>&)> then_;
  std::atomic_flag answered_;
};

} // namespace

std::function<void(const result<void>&)>
answer_once(std::function<void(const result<void>&)> then) {
  return [held = std::make_shared<pending_answer>(std::move(then))](const result<void>& done) {
    held->give(done);
  };
}

outcome<void> only_repository(std::string_view name) {
  if (name.empty())
    return {};
  return refuse(failure_code::unsupported,
                "'repository_name' specification is not supported: there is one repository; leave "
                "it out");
}

outcome<void> add_parameter(model_order& order, const std::string& name, order_value value) {
  if (name == "unload_dependents") {
    // Ensembles alone have dependents, and there are none here.
    return std::holds_alternative<bool>(value) ? outcome<void>{}
                                               : refuse("'unload_dependents' must be a boolean");
  }
  if (!order.load)
    return refuse(fmt::format("unexpected parameter '{}' of an unload request; it takes "
                              "'unload_dependents'",
                              shown(name)));
  auto* text = std::get_if<std::string>(&value);
  if (text == nullptr)
    return refuse(fmt::format("the parameter '{}' must be a string", shown(name)));
  if (name == "config")
    order.overrides.config = std::move(*text);
  else if (name.starts_with(file_prefix))
    order.overrides.files[name.substr(file_prefix.size())] = std::move(*text);
  else
    return refuse(fmt::format("unexpected parameter '{}' of a load request; it takes 'config' and "
                              "'file:<version>/<path>'",
                              shown(name)));
  return {};
}

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
