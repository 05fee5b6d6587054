#include "actors/edge/grpc/stream_reactor.hpp"

#include "actors/edge/grpc/messages.hpp"
#include "actors/edge/grpc/status.hpp"

#include <algorithm>
#include <utility>

namespace troupe::actors::kserve {

namespace {

/// Requests of one stream in flight; further ones are not read until some have ended.
constexpr std::size_t most_calls = 1024;
/// Refusals that wait for a slow reader, by number and by the bytes of their ids and names.
constexpr std::size_t most_waiting = 1024;
constexpr std::size_t most_waiting_bytes = 1U << 20U;
constexpr auto final_response = "triton_final_response";

bool asks_for_status(const ::grpc::CallbackServerContext& context) {
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find("triton_grpc_error");
  return found != metadata.end() && found->second == "true";
}

} // namespace

stream_reactor* stream_reactor::open(std::shared_ptr<surroundings> edge,
                                     const ::grpc::CallbackServerContext& context) {
  const auto made = std::make_shared<stream_reactor>(edge, asks_for_status(context));
  made->self_ = made;
  {
    const std::lock_guard lock{edge->mutex};
    edge->streams.emplace(made.get(), made);
    made->winding_down_ = edge->winding_down;
  }
  made->StartRead(&made->request_);
  return made.get();
}

stream_reactor::stream_reactor(std::shared_ptr<surroundings> edge, bool errors_end)
    : edge_{std::move(edge)}, errors_end_{errors_end} {}

void stream_reactor::accept() {
  const infer_response refusal{
      .model = request_.model_name(), .version = request_.model_version(), .id = request_.id()};
  auto read = read_request(request_, edge_->around->memory());
  if (!read)
    return refuse_request(std::move(read.error()), refusal);
  auto opened = call::open(edge_->around, std::move(*read), waker(*edge_, std::weak_ptr{self_}));
  if (!opened)
    return refuse_request(std::move(opened.error()), refusal);
  calls_.push_back(std::move(*opened));
  calls_.back()->begin();
}

void stream_reactor::refuse_request(failure why, infer_response as) {
  as.error = std::move(why);
  as.last = true;
  ready_.push_back(std::move(as));
}

/// Whether another request may be read. What a client does not read of its refusals is kept here,
/// so that it must end somewhere.
bool stream_reactor::has_room() const {
  std::size_t bytes = 0;
  for (const auto& r : ready_)
    bytes += r.id.size() + r.model.size() + r.version.size();
  return calls_.size() < most_calls && ready_.size() < most_waiting && bytes < most_waiting_bytes;
}

void stream_reactor::collect() {
  for (auto& running : calls_)
    for (auto& response : running->take())
      if (!response.last || !running->hides_end())
        ready_.push_back(std::move(response));
  std::erase_if(calls_, [](const auto& running) { return running->ended(); });
}

/// Writes what there is, reads on, or ends: whatever is to be done now.
void stream_reactor::advance() {
  if (finished_)
    return;
  if (!writing_ && ready_.empty())
    collect();
  if (!writing_ && !ready_.empty())
    write_next();
  if (finished_)
    return;
  if (!writing_ && calls_.empty() && (read_all_ || winding_down_))
    return end(read_all_ ? ::grpc::Status::OK
                         : to_status({failure_code::unavailable,
                                      "the server is shutting down; open a stream to another"}));
  if (reading_ || read_all_ || winding_down_ || !has_room())
    return;
  reading_ = true;
  StartRead(&request_);
}

void stream_reactor::write_next() {
  auto response = std::move(ready_.front());
  ready_.pop_front();
  if (response.error && errors_end_)
    return end(to_status(*response.error));
  message_.Clear();
  auto& inner = *message_.mutable_infer_response();
  if (response.error)
    message_.set_error_message(sentence(*response.error));
  response.parameters[final_response] = response.last;
  write_response(std::move(response), inner);
  writing_ = true;
  ::grpc::WriteOptions options;
  // gRPC holds the first write back with the stream's metadata, and would wait for another one that
  // waits for the first.
  if (written_ && !ready_.empty())
    options.set_buffer_hint();
  StartWrite(&message_, options);
}

void stream_reactor::end(const ::grpc::Status& status) {
  finished_ = true;
  calls_.clear();
  ready_.clear();
  Finish(status);
}

void stream_reactor::pump() {
  const std::lock_guard lock{mutex_};
  advance();
}

void stream_reactor::wind_down() {
  const std::lock_guard lock{mutex_};
  winding_down_ = true;
  advance();
}

void stream_reactor::OnReadDone(bool ok) {
  const std::lock_guard lock{mutex_};
  reading_ = false;
  read_all_ = read_all_ || !ok;
  if (ok && !finished_)
    accept();
  advance();
}

void stream_reactor::OnWriteDone(bool ok) {
  const std::lock_guard lock{mutex_};
  writing_ = false;
  written_ = true;
  if (!ok && !finished_)
    return end(::grpc::Status::CANCELLED);
  advance();
}

void stream_reactor::OnCancel() {
  const std::lock_guard lock{mutex_};
  if (!finished_)
    end(::grpc::Status::CANCELLED);
}

void stream_reactor::OnDone() {
  const auto last = std::move(self_);
  const std::lock_guard lock{edge_->mutex};
  edge_->streams.erase(this);
}

} // namespace troupe::actors::kserve
