// A hybrid that makes the mistakes that its model's key "mistake" and the prompts name.
#include <troupe/actors/hybrid_api.hpp>

#include <stdexcept>

namespace {

using namespace troupe::backends;
using troupe::result;

/// Throws at the third part of an answer to a prompt that says so.
class throwing_sink final : public response_sink {
public:
  explicit throwing_sink(response_sink_ptr to) : to_{std::move(to)} {}
  void on_accepted(troupe::request_id id, std::uint32_t prompt_tokens) override {
    to_->on_accepted(id, prompt_tokens);
  }
  void on_part(response_part part) override {
    if (++parts_ == 3)
      throw std::runtime_error{"the third part is too much"};
    to_->on_part(std::move(part));
  }
  bool wanted() const override { return to_->wanted(); }

private:
  response_sink_ptr to_;
  int parts_ = 0;
};

class careless : public engine_backend {
public:
  std::vector<std::string> own_keys() const override {
#ifdef CARELESS_KEYS_THROW
    throw 7;
#endif
    return {"mistake"};
  }
  result<void> initialize(const hybrid_facts& facts, host& around) override {
    if (facts.own_keys_json.find("no base") != std::string::npos)
      return {};
    return engine_backend::initialize(facts, around);
  }
  void execute(inference_request_ptr request, response_sink_ptr sink) override {
    const auto prompt = request->prompt_text.value_or("");
    if (prompt == "silence")
      return;
    if (prompt == "throw in a part")
      sink = std::make_shared<throwing_sink>(std::move(sink));
    engine_backend::execute(std::move(request), std::move(sink));
    if (prompt == "throw after")
      throw std::runtime_error{"too late"};
  }
};

} // namespace

TROUPE_HYBRID_BACKEND("careless", "0.1.0", careless)
