#include "actors/edge/grpc/infer_reactor.hpp"

#include "actors/edge/grpc/messages.hpp"
#include "actors/edge/grpc/status.hpp"

#include <utility>

namespace troupe::actors::kserve {

::grpc::ServerUnaryReactor* infer_reactor::open(surroundings& edge,
                                                const inference::ModelInferRequest& request,
                                                inference::ModelInferResponse& response) {
  const auto made = std::make_shared<infer_reactor>(response);
  made->self_ = made;
  made->begin(edge, request, made);
  return made.get();
}

void infer_reactor::begin(surroundings& edge, const inference::ModelInferRequest& request,
                          std::weak_ptr<infer_reactor> self) {
  const std::lock_guard lock{mutex_};
  auto read = read_request(request, edge.around->memory());
  if (!read)
    return end(to_status(read.error()));
  auto opened = call::open(edge.around, std::move(*read), [self, later = waker(edge, self)] {
    // The answer goes out from the thread that has it, and a hop is saved;
    // Finish() only queues. What comes before begin() has ended cannot: its
    // thread holds the lock.
    const auto alive = self.lock();
    if (alive && alive->begun_)
      alive->pump();
    else
      later();
  });
  if (!opened)
    return end(to_status(opened.error()));
  if ((*opened)->many())
    return end(to_status({failure_code::unsupported,
                          "ModelInfer RPC doesn't support models with decoupled transaction policy "
                          "when 'stream' is set; use ModelStreamInfer"}));
  call_ = std::move(*opened);
  call_->expect_one();
  call_->begin();
  begun_ = true;
}

void infer_reactor::pump() {
  const std::lock_guard lock{mutex_};
  if (finished_)
    return;
  for (auto& response : call_->take()) {
    if (!response.last)
      continue;
    if (response.error)
      return end(to_status(*response.error));
    write_response(std::move(response), response_);
    return end(::grpc::Status::OK);
  }
}

void infer_reactor::end(const ::grpc::Status& status) {
  finished_ = true;
  call_.reset();
  Finish(status);
}

void infer_reactor::OnCancel() {
  const std::lock_guard lock{mutex_};
  if (!finished_)
    end(::grpc::Status::CANCELLED);
}

} // namespace troupe::actors::kserve
