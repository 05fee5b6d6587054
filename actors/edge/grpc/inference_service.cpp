#include "actors/edge/grpc/inference_service.hpp"

#include "actors/edge/grpc/infer_reactor.hpp"
#include "actors/edge/grpc/plain_answers.hpp"
#include "actors/edge/grpc/status.hpp"
#include "actors/edge/grpc/stream_reactor.hpp"
#include "actors/edge/kserve/control.hpp"

#include "proto/kserve.grpc.pb.h"

#include <string_view>
#include <utility>

namespace troupe::actors::kserve {

namespace {

using ::grpc::CallbackServerContext;
using ::grpc::ServerUnaryReactor;

/// A stream that ends before it begins.
class refused_stream final
    : public ::grpc::ServerBidiReactor<pb::ModelInferRequest, pb::ModelStreamInferResponse> {
public:
  explicit refused_stream(const Status& why) { Finish(why); }
  void OnDone() override { delete this; }
};

order_value value_of(const pb::ModelRepositoryParameter& p) {
  if (p.has_bool_param())
    return p.bool_param();
  if (p.has_string_param())
    return p.string_param();
  if (p.has_bytes_param())
    return p.bytes_param();
  return std::monostate{};
}

template <class In>
outcome<model_order> order_of(const In& in, bool load) {
  if (const auto whole = only_repository(in.repository_name()); !whole)
    return tl::unexpected<failure>(whole.error());
  model_order order{.load = load, .name = in.model_name(), .overrides = {}, .done = {}};
  for (const auto& [name, value] : in.parameters())
    if (const auto good = add_parameter(order, name, value_of(value)); !good)
      return tl::unexpected<failure>(good.error());
  return order;
}

class inference_service final : public pb::GRPCInferenceService::CallbackService {
public:
  explicit inference_service(std::shared_ptr<surroundings> edge) : edge_{std::move(edge)} {}

// The overrides of the methods that need no backend.
#define TROUPE_PLAIN(method, open_to_all)                                                          \
  ServerUnaryReactor* method(CallbackServerContext* context, const pb::method##Request* in,        \
                             pb::method##Response* out) override {                                 \
    return plain(*context, *in, *out, open_to_all);                                                \
  }
  TROUPE_PLAIN(ServerLive, true)
  TROUPE_PLAIN(ServerReady, true)
  TROUPE_PLAIN(ModelReady, false)
  TROUPE_PLAIN(ServerMetadata, false)
  TROUPE_PLAIN(ModelMetadata, false)
  TROUPE_PLAIN(ModelConfig, false)
  TROUPE_PLAIN(ModelStatistics, false)
  TROUPE_PLAIN(RepositoryIndex, false)
  TROUPE_PLAIN(SystemSharedMemoryStatus, false)
  TROUPE_PLAIN(SystemSharedMemoryRegister, false)
  TROUPE_PLAIN(SystemSharedMemoryUnregister, false)
  TROUPE_PLAIN(CudaSharedMemoryStatus, false)
  TROUPE_PLAIN(CudaSharedMemoryRegister, false)
  TROUPE_PLAIN(CudaSharedMemoryUnregister, false)
  TROUPE_PLAIN(TraceSetting, false)
  TROUPE_PLAIN(LogSettings, false)
#undef TROUPE_PLAIN

  ServerUnaryReactor* ModelInfer(CallbackServerContext* context, const pb::ModelInferRequest* in,
                                 pb::ModelInferResponse* out) override {
    return allowed(*edge_, *context) ? infer_reactor::open(*edge_, *in, *out)
                                     : finished(*context, no_key());
  }

  ::grpc::ServerBidiReactor<pb::ModelInferRequest, pb::ModelStreamInferResponse>*
  ModelStreamInfer(CallbackServerContext* context) override {
    if (!allowed(*edge_, *context))
      return new refused_stream{no_key()};
    return stream_reactor::open(edge_, *context);
  }

  ServerUnaryReactor* RepositoryModelLoad(CallbackServerContext* context,
                                          const pb::RepositoryModelLoadRequest* in,
                                          pb::RepositoryModelLoadResponse*) override {
    return carry_out(*context, *in, true);
  }

  ServerUnaryReactor* RepositoryModelUnload(CallbackServerContext* context,
                                            const pb::RepositoryModelUnloadRequest* in,
                                            pb::RepositoryModelUnloadResponse*) override {
    return carry_out(*context, *in, false);
  }

private:
  /// Answered when the model is ready, or has ended its last request.
  template <class In>
  ServerUnaryReactor* carry_out(CallbackServerContext& context, const In& in, bool load) {
    if (!allowed(*edge_, context))
      return finished(context, no_key());
    if (const auto may = edge_->around->may_control(); !may)
      return finished(context, to_status(may.error()));
    auto order = order_of(in, load);
    if (!order)
      return finished(context, to_status(order.error()));
    auto* reactor = context.DefaultReactor();
    order->done = answer_once([reactor](const result<void>& done) {
      reactor->Finish(done ? Status::OK : to_status(to_failure(done.error())));
    });
    edge_->around->control(std::make_shared<model_order>(std::move(*order)));
    return reactor;
  }

  template <class In, class Out>
  ServerUnaryReactor* plain(CallbackServerContext& context, const In& in, Out& out,
                            bool open_to_all) {
    const bool may = open_to_all || allowed(*edge_, context);
    return finished(context, may ? answer(*edge_->around, in, out) : no_key());
  }

  static ServerUnaryReactor* finished(CallbackServerContext& context, const Status& status) {
    auto* reactor = context.DefaultReactor();
    reactor->Finish(status);
    return reactor;
  }

  std::shared_ptr<surroundings> edge_;
};

} // namespace

bool allowed(const surroundings& edge, const ::grpc::ServerContextBase& context) {
  if (!edge.keys)
    return true;
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find("authorization");
  return found != metadata.end() &&
         edge.keys->allow(std::string_view{found->second.data(), found->second.size()});
}

Status no_key() {
  return {::grpc::StatusCode::UNAUTHENTICATED,
          "no API key was given, or one that is not known here; send the metadata authorization: "
          "Bearer KEY"};
}

std::unique_ptr<::grpc::Service> make_inference_service(std::shared_ptr<surroundings> edge) {
  return std::make_unique<inference_service>(std::move(edge));
}

} // namespace troupe::actors::kserve
