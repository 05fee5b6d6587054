// A hybrid backend that only hands on.

#include <troupe/actors/hybrid_api.hpp>

namespace {

using namespace troupe::backends;

class forward : public engine_backend {
public:
  void execute(inference_request_ptr request, response_sink_ptr sink) override {
    engine_backend::execute(std::move(request), std::move(sink));
  }
};

} // namespace

TROUPE_HYBRID_BACKEND("forward", "0.1.0", forward)
