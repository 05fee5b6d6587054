// The yardstick of bench_stage: what grpc++'s callback API itself takes.

#include "tests/bench/stage_parts.hpp"

#include "proto/kserve.grpc.pb.h"

#include <grpc/support/log.h>
#include <grpcpp/grpcpp.h>

#include <cstdio>
#include <mutex>
#include <set>
#include <thread>

namespace stage {

namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;
using inference::ModelStreamInferResponse;

class bare_stream;

/// All streams, which a clock drives as steps drive an engine's.
struct stream_set {
  std::mutex mutex;
  std::set<bare_stream*> all;
};

class bare_stream final
    : public ::grpc::ServerBidiReactor<ModelInferRequest, ModelStreamInferResponse> {
public:
  bare_stream(stream_set& streams, const ModelStreamInferResponse& message)
      : streams_{streams}, message_{message} {
    const std::lock_guard lock{streams_.mutex};
    streams_.all.insert(this);
    StartRead(&request_);
  }

  void tick() {
    const std::lock_guard lock{mutex_};
    if (left_ == 0)
      return;
    ++due_;
    --left_;
    write();
  }

private:
  void write() {
    if (writing_ || due_ == 0)
      return;
    --due_;
    ++sent_;
    writing_ = true;
    auto& inner = *message_.mutable_infer_response();
    auto& text = *inner.mutable_raw_output_contents(0);
    text.back() = static_cast<char>('a' + sent_ % 26);
    (*inner.mutable_parameters())["triton_final_response"].set_bool_param(left_ + due_ == 0);
    StartWrite(&message_);
  }

  void OnReadDone(bool ok) override {
    const std::lock_guard lock{mutex_};
    if (!ok)
      read_all_ = true;
    else
      left_ = std::stoul(request_.id());
    if (ok)
      StartRead(&request_);
    end();
  }

  void OnWriteDone(bool) override {
    const std::lock_guard lock{mutex_};
    writing_ = false;
    write();
    end();
  }

  void end() {
    if (read_all_ && !writing_ && left_ + due_ == 0 && !ended_) {
      ended_ = true;
      Finish(::grpc::Status::OK);
    }
  }

  void OnDone() override {
    {
      const std::lock_guard lock{streams_.mutex};
      streams_.all.erase(this);
    }
    delete this;
  }

  stream_set& streams_;
  std::mutex mutex_;
  ModelInferRequest request_;
  ModelStreamInferResponse message_;
  std::uint64_t left_ = 0;
  std::uint64_t due_ = 0;
  std::uint64_t sent_ = 0;
  bool writing_ = false;
  bool read_all_ = false;
  bool ended_ = false;
};

class bare_service final : public inference::GRPCInferenceService::CallbackService {
public:
  explicit bare_service(const std::string& message) { message_.ParseFromString(message); }

  ::grpc::ServerUnaryReactor* ModelInfer(::grpc::CallbackServerContext* context,
                                         const ModelInferRequest* in,
                                         ModelInferResponse* out) override {
    out->set_model_name(in->model_name());
    out->set_model_version("1");
    out->set_id(in->id());
    auto& output = *out->add_outputs();
    output.set_name("OUTPUT0");
    output.set_datatype(in->inputs(0).datatype());
    *output.mutable_shape() = in->inputs(0).shape();
    out->add_raw_output_contents(in->raw_input_contents(0));
    auto* reactor = context->DefaultReactor();
    reactor->Finish(::grpc::Status::OK);
    return reactor;
  }

  ::grpc::ServerBidiReactor<ModelInferRequest, ModelStreamInferResponse>*
  ModelStreamInfer(::grpc::CallbackServerContext*) override {
    return new bare_stream{streams, message_};
  }

  stream_set streams;

private:
  ModelStreamInferResponse message_;
};

} // namespace

int run_bare(const std::string& message) {
  bare_service service{message};
  ::grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", ::grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const auto server = builder.BuildAndStart();
  std::printf("listening on grpc://127.0.0.1:%d\nready\n", port);
  std::fflush(stdout);
  auto next = steady::now();
  while (true) {
    next = std::max(next + std::chrono::nanoseconds{step_ns}, steady::now());
    std::this_thread::sleep_until(next);
    const std::lock_guard lock{service.streams.mutex};
    for (auto* one : service.streams.all)
      one->tick();
  }
}

} // namespace stage
