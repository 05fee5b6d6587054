#include "actors/edge/answer.hpp"
#include "actors/edge/connection.hpp"
#include "actors/edge/kserve/http.hpp"
#include "actors/edge/request_head.hpp"
#include "actors/wake_batch.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <fmt/core.h>

#include <algorithm>

/// The half of a connection that answers; connection.cpp has the half that moves bytes.

namespace troupe::actors {

namespace asio = boost::asio;
namespace http = boost::beast::http;

void connection::handle() {
  auto request = parser_->release();
  parser_.reset();
  phase_ = phase::answering;
  timer_.cancel();
  ++alarms_;
  ++exchanges_;
  arrival_ = std::chrono::steady_clock::now();
  facts_.http10 = request.version() < 11;
  facts_.chunked = !facts_.http10;
  facts_.keep_alive = request.keep_alive() && !winding_down_;
  const auto id = request["X-Request-Id"];
  facts_.request_id = clean_request_id({id.data(), id.size()});
  if (facts_.request_id.empty())
    facts_.request_id = next_id();
  const auto method = request.method_string();
  const auto target = request.target();
  const auto text_of = [&](auto name) {
    const auto value = request[name];
    return std::string_view{value.data(), value.size()};
  };
  head_only_ = request.method() == http::verb::head;
  route_ = around_.edge->route_of({target.data(), target.size()});
  dispatch({.method = {method.data(), method.size()},
            .authorization = text_of(http::field::authorization),
            .content_encoding = text_of(http::field::content_encoding),
            .json_length = text_of("Inference-Header-Content-Length"),
            .body = request.body()});
  read();
}

void connection::dispatch(const received& request) {
  const auto& edge = *around_.edge;
  api_error e;
  if (route_.id == route_id::unknown || (route_.id == route_id::kill && !edge.options.kill_actor) ||
      (route_.id == route_id::drain && !edge.options.drain_node)) {
    e.status = 404;
    e.message = edge.options.only_metrics ? "There is nothing here but GET /metrics"
                : route_.below_v2
                    ? "Not Found: there is nothing at this path of the KServe API"
                    : "There is nothing at this path; POST /v1/completions or "
                      "/v1/chat/completions, or GET /v1/models, /health, /ready, /metrics, "
                      "/version; KServe's API begins at /v2";
    e.code = "not_found";
    return send_error(e);
  }
  if (!takes(route_, request.method)) {
    e.status = 405;
    e.message = fmt::format("{} takes only {}", route_.label, route_.allow);
    e.code = "method_not_allowed";
    return send_error(e);
  }
  if (request.method == "OPTIONS")
    return send({204, {}, {}, {{"Allow", std::string{route_.allow}}}});
  if (route_.guarded && edge.keys && !edge.keys->allow(request.authorization)) {
    e = to_api_error(
        {errc::unauthorized, request.authorization.empty()
                                 ? "No API key was given; send the header Authorization: Bearer KEY"
                                 : "The API key is not known here"});
    return send_error(e);
  }
  if (route_.id == route_id::kserve)
    return dispatch_kserve(request);
  if (route_.id == route_id::completions || route_.id == route_id::chat)
    return open_answer(request.body);
  send(answer_plain(edge, route_, request.body));
}

/// An error of HTTP itself, in the form of the API that the path belongs to.
void connection::send_error(const api_error& e) {
  auto r = error_reply(e);
  if (route_.below_v2)
    r.body = kserve::error_json(e.message);
  if (e.status == 405)
    r.headers.emplace_back("Allow", route_.allow);
  send(r);
}

void connection::dispatch_kserve(const received& request) {
  const auto& edge = *around_.edge;
  const kserve::http_request asked{
      .where = *route_.v2,
      .method = request.method,
      .body = request.body,
      .json_length = request.json_length,
      .content_encoding = request.content_encoding,
      .max_body_bytes = std::max(edge.options.max_body_bytes, edge.options.max_tensor_body_bytes),
      .arrival = arrival_};
  if (!kserve::waits(route_.v2->what))
    return send(kserve::answer_plain(*edge.kserve, asked));
  auto opened = kserve::open_exchange(edge.kserve, asked, waker());
  if (!opened)
    return send(opened.error());
  answer_ = std::move(*opened);
  answer_->begin();
}

std::function<void()> connection::waker() {
  return [io = around_.io, weak = weak_from_this()] {
    const auto alive = io.lock();
    if (!alive)
      return;
    if (wake_batch::few() && !alive->get_executor().running_in_this_thread())
      if (const auto self = weak.lock(); self && self->push())
        return;
    asio::post(*alive, [weak] {
      const auto self = weak.lock();
      if (!self)
        return;
      const std::lock_guard lock{self->mutex_};
      self->pump();
    });
  };
}

void connection::open_answer(const std::string& body) {
  const auto& edge = *around_.edge;
  const bool chat = route_.id == route_id::chat;
  prompt_limit most{edge.options.max_prompts_per_request};
  if (edge.options.max_queued_requests < most.most)
    most = {edge.options.max_queued_requests, "limits.max_queued_requests"};
  auto request = chat ? parse_chat(body) : parse_completion(body, most);
  if (!request)
    return send(error_reply(request.error()));
  const auto view = edge.desk->view();
  const auto model = pick_model(*view, request->model);
  if (!model)
    return send(error_reply(model.error()));
  if (const auto tokens = request->prompts.front().max_tokens)
    edge.numbers->observe_max_tokens(model->name, *tokens);
  answer_ = std::make_unique<answer>(std::move(*request), *model,
                                     answer::origin{.id = next_id(),
                                                    .arrival = arrival_,
                                                    .numbers = edge.numbers,
                                                    .counts = edge.kserve->counts(),
                                                    .wake = waker(),
                                                    .presence = edge.desk->open_answer()});
  answer_->begin();
}

/// From a backend's thread: sends the next piece of a stream, and a wake of the edge's thread is
/// saved.
/// @return false: it is the edge's thread that has something to do
bool connection::push() {
  const std::unique_lock lock{mutex_, std::try_to_lock};
  if (!lock || phase_ != phase::answering || !answer_ || writing_ || left_)
    return false;
  auto out = answer_->take();
  if (out.whole || out.end) {
    left_ = std::move(out);
    return false;
  }
  if (out.bytes.empty())
    return true;
  out_ = bytes_of(out);
  boost::system::error_code ec;
  sent_ = socket_.write_some(asio::buffer(out_), ec);
  if (!ec && sent_ == out_.size()) {
    out_.clear();
    return true;
  }
  writing_ = true;
  asio::post(socket_.get_executor(), [self = shared_from_this()] {
    const std::lock_guard rest{self->mutex_};
    if (self->phase_ != phase::closed)
      self->write_some();
  });
  return true;
}

void connection::pump() {
  if (!answer_ || writing_)
    return;
  auto out = left_ ? std::move(*left_) : answer_->take();
  left_.reset();
  if (out.end)
    answer_.reset();
  if (out.whole)
    return send(*out.whole);
  stream(std::move(out));
}

void connection::stream(exchange::output out) {
  if (!out.bytes.empty() || out.end)
    write(bytes_of(out));
}

std::string connection::bytes_of(const exchange::output& out) {
  if (out.broken || (out.end && !facts_.chunked))
    facts_.keep_alive = false;
  std::string bytes;
  if (!head_sent_) {
    if (!facts_.chunked)
      facts_.keep_alive = false;
    bytes = stream_head(facts_);
    around_.edge->numbers->http_request(route_.label, 200);
    head_sent_ = true;
  }
  // An end may come alone, and an empty chunk would be one.
  if (!out.bytes.empty())
    bytes += facts_.chunked ? chunk_of(out.bytes) : out.bytes;
  if (out.end && facts_.chunked)
    bytes += last_chunk();
  return bytes;
}

void connection::send(const reply& r) {
  around_.edge->numbers->http_request(route_.label, r.status);
  if (winding_down_)
    facts_.keep_alive = false;
  auto bytes = head_of(r, facts_);
  if (!head_only_)
    bytes += r.body;
  write(std::move(bytes));
}

std::string connection::next_id() { return fmt::format("{:016x}{:08x}", around_.id, exchanges_); }

} // namespace troupe::actors
