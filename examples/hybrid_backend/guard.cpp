// A hybrid backend: the engine's own, with a prompt template for each tenant in front and a filter
// of personal data behind. Its keys of model.json are "tenants" and "private_data".

#include "private_data.hpp"

#include <troupe/actors/hybrid_api.hpp>

#include <nlohmann/json.hpp>

#include <map>
#include <optional>
#include <string>
#include <utility>

namespace {

using namespace troupe::backends;
using nlohmann::json;
using troupe::errc;
using troupe::fail;
using troupe::result;

struct tenant {
  std::string prompt;
  std::string system;
};

/// Between the engine and the client: lets only clean text through.
class clean_sink final : public response_sink {
public:
  clean_sink(response_sink_ptr to, guard::replacements with, host& around)
      : to_{std::move(to)}, filter_{std::move(with)}, host_{around} {}

  void on_accepted(troupe::request_id id, std::uint32_t prompt_tokens) override {
    to_->on_accepted(id, prompt_tokens);
  }

  void on_part(response_part part) override {
    part.text = filter_.push(part.text);
    if (part.finish != troupe::engine::finish_reason::none) {
      part.text += filter_.flush();
      host_.count("replaced", filter_.found());
    }
    to_->on_part(std::move(part));
  }

  bool wanted() const override { return to_->wanted(); }

private:
  response_sink_ptr to_;
  guard::private_data filter_;
  host& host_;
};

void refuse(response_sink& sink, std::string why) {
  response_part last;
  last.finish = troupe::engine::finish_reason::error;
  last.why = {errc::invalid_argument, std::move(why)};
  sink.on_part(std::move(last));
}

class guard_backend : public engine_backend {
public:
  std::vector<std::string> own_keys() const override { return {"tenants", "private_data"}; }
  std::vector<std::string> own_parameters() const override { return {"tenant"}; }

  result<void> initialize(const hybrid_facts& facts, host& around) override {
    host_ = &around;
    if (auto read = read_keys(facts.own_keys_json); !read)
      return read;
    return engine_backend::initialize(facts, around);
  }

  void execute(inference_request_ptr request, response_sink_ptr sink) override {
    const auto label = request->labels.find("tenant");
    if (label != request->labels.end()) {
      const auto found = tenants_.find(label->second);
      if (found == tenants_.end())
        return refuse(*sink, "there is no tenant '" + label->second.substr(0, 64) +
                                 "'; model.json names those that there are");
      request = std::make_shared<const inference_request>(for_tenant(*request, found->second));
    }
    auto clean = std::make_shared<clean_sink>(std::move(sink), with_, *host_);
    engine_backend::execute(std::move(request), std::move(clean));
  }

private:
  result<void> read_keys(const std::string& text) try {
    const auto keys = json::parse(text);
    const auto tenants = keys.value("tenants", json::object());
    for (const auto& [name, value] : tenants.items())
      tenants_[name] = {value.value("prompt", "{prompt}"), value.value("system", "")};
    for (const auto& [name, one] : tenants_)
      if (one.prompt.find("{prompt}") == std::string::npos)
        return fail(errc::invalid_argument,
                    "tenants." + name + ".prompt must hold {prompt}, where the client's text goes");
    const auto kinds = keys.value("private_data", json::object());
    with_ = {kinds.value("emails", ""), kinds.value("phones", "")};
    return {};
  } catch (const json::exception& e) {
    return fail(errc::invalid_argument,
                std::string{"tenants or private_data in model.json: "} + e.what());
  }

  static inference_request for_tenant(inference_request request, const tenant& t) {
    if (request.prompt_text) {
      auto text = t.prompt;
      text.replace(text.find("{prompt}"), 8, *request.prompt_text);
      request.prompt_text = std::move(text);
    } else if (request.messages_json && !t.system.empty()) {
      auto messages = json::parse(*request.messages_json);
      messages.insert(messages.begin(), json{{"role", "system"}, {"content", t.system}});
      request.messages_json = messages.dump();
    }
    return request;
  }

  std::map<std::string, tenant> tenants_;
  guard::replacements with_;
  host* host_ = nullptr;
};

} // namespace

TROUPE_HYBRID_BACKEND("guard", GUARD_TESTED_WITH, guard_backend)
