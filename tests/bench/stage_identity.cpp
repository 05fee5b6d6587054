// A custom backend that gives back what it gets.

#include <troupe/actors/backend_api.hpp>

namespace {

using namespace troupe::backends;

class identity : public backend {
public:
  troupe::result<void> auto_complete_config(const model_facts&, declarations& wanted) override {
    wanted.inputs = {{"INPUT0", datatype::uint8, {-1}}};
    wanted.outputs = {{"OUTPUT0", datatype::uint8, {-1}}};
    wanted.max_batch_size = 0;
    return {};
  }

  troupe::result<void> execute(std::span<const exchange_ptr> requests) override {
    for (const auto& one : requests) {
      const auto& in = *one->input().find("INPUT0");
      response back;
      back.outputs.push_back({"OUTPUT0", in.type, in.shape, in.data});
      one->respond(std::move(back));
    }
    return {};
  }
};

} // namespace

TROUPE_BACKEND("identity", identity)
