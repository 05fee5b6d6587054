#include "actors/edge/connection.hpp"

#include "actors/edge/request_head.hpp"
#include "troupe/base/log.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/socket_base.hpp>
#include <boost/beast/core/buffer_traits.hpp>
#include <boost/beast/http/error.hpp>
#include <fmt/core.h>

#include <algorithm>

namespace troupe::actors {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

namespace {

/// What is sent ahead of a short answer waits in the kernel once so much of it is here.
constexpr std::size_t ahead_bytes = 64U << 10U;
constexpr std::chrono::milliseconds linger_time{2000};

} // namespace

connection::connection(tcp::socket socket, surroundings around)
    : socket_{std::move(socket)}, around_{std::move(around)}, timer_{socket_.get_executor()},
      buffer_{around_.edge->options.max_header_bytes +
              std::max<std::size_t>(around_.edge->options.max_body_bytes, ahead_bytes) +
              2 * fresh_.size()} {
  error_code ignored;
  socket_.set_option(tcp::no_delay{true}, ignored);
  if (const auto bytes = around_.edge->options.send_buffer_bytes; bytes > 0)
    socket_.set_option(asio::socket_base::send_buffer_size{static_cast<int>(bytes)}, ignored);
  socket_.non_blocking(true, ignored);
}

void connection::start() {
  become_idle();
  read();
}

void connection::turn_away() {
  phase_ = phase::answering;
  facts_.keep_alive = false;
  api_error e = to_api_error({errc::busy, "too many connections; close some, or try again later"});
  e.status = 503;
  send(error_reply(e));
}

void connection::wind_down() {
  winding_down_ = true;
  if (phase_ == phase::idle)
    close();
}

void connection::cut() {
  error_code ignored;
  socket_.set_option(asio::socket_base::linger{true, 0}, ignored);
  close();
}

void connection::read() {
  // While a generation runs nothing waits in the kernel: the client's leaving is behind it.
  const bool full = phase_ == phase::answering && !answer_ && buffer_.size() >= ahead_bytes;
  if (reading_ || full || phase_ == phase::closed)
    return;
  reading_ = true;
  socket_.async_read_some(
      asio::buffer(fresh_),
      [self = shared_from_this()](error_code ec, std::size_t n) { self->on_read(ec, n); });
}

void connection::on_read(error_code ec, std::size_t bytes) {
  reading_ = false;
  if (phase_ == phase::closed)
    return;
  if (ec) {
    client_gone_ = true;
    // A reply that is complete may still be written to a client that only stopped sending.
    if (answer_ || !writing_)
      close();
    return;
  }
  if (phase_ == phase::lingering)
    return read();
  if (bytes > buffer_.max_size() - buffer_.size()) {
    log_info("edge: a client that sent more than {} bytes ahead of its answer was cut off",
             buffer_.size());
    return cut();
  }
  buffer_.commit(asio::buffer_copy(buffer_.prepare(bytes), asio::buffer(fresh_, bytes)));
  if (phase_ != phase::answering)
    return advance();
  read();
}

void connection::become_idle() {
  phase_ = phase::idle;
  if (buffer_.capacity() > ahead_bytes)
    buffer_.shrink_to_fit();
  arm(around_.edge->options.idle_timeout);
}

void connection::begin_request() {
  phase_ = phase::reading;
  continued_ = false;
  head_seen_ = false;
  facts_ = {};
  route_ = {};
  head_only_ = false;
  head_sent_ = false;
  parser_.emplace();
  head_bytes_ = 0;
  parser_->header_limit(around_.edge->options.max_header_bytes);
  parser_->body_limit(around_.edge->options.max_body_bytes);
  arm(around_.edge->options.header_timeout);
}

void connection::advance() {
  while (true) {
    if (!parser_) {
      if (buffer_.size() == 0) {
        become_idle();
        return read();
      }
      begin_request();
    }
    error_code ec;
    const auto used = parser_->put(buffer_.data(), ec);
    buffer_.consume(used);
    // The parser's own limit is one of each call.
    if (!head_seen_ && (head_bytes_ += used) > around_.edge->options.max_header_bytes)
      return refuse_bytes(syntax_error(http::error::header_limit));
    if (!head_seen_ && parser_->is_header_done()) {
      head_seen_ = true;
      parser_->eager(true);
      if (const auto refused = refuse_head(parser_->get()))
        return refuse_bytes(*refused);
    }
    if (ec && ec != http::error::need_more)
      return refuse_bytes(syntax_error(ec));
    if (parser_->is_done())
      return handle();
    if (ec == http::error::need_more || used == 0 || buffer_.size() == 0) {
      // What waits for its end is one line, the extension of a chunk or the trailers.
      if (buffer_.size() > around_.edge->options.max_header_bytes)
        return refuse_bytes(syntax_error(http::error::header_limit));
      allow_body();
      return read();
    }
  }
}

void connection::allow_body() {
  if (continued_ || !parser_->is_header_done())
    return;
  continued_ = true;
  const auto& head = parser_->get();
  if (head.version() < 11 || head.find(http::field::expect) == head.end())
    return;
  error_code ignored;
  static constexpr std::string_view go_on = "HTTP/1.1 100 Continue\r\n\r\n";
  socket_.write_some(asio::buffer(go_on.data(), go_on.size()), ignored);
}

void connection::refuse_bytes(const api_error& e) {
  parser_.reset();
  phase_ = phase::answering;
  facts_.keep_alive = false;
  send(error_reply(e));
}

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
  const auto authorization = request[http::field::authorization];
  head_only_ = request.method() == http::verb::head;
  route_ = find_route({target.data(), target.size()});
  dispatch({method.data(), method.size()}, {authorization.data(), authorization.size()},
           request.body());
  read();
}

void connection::dispatch(std::string_view method, std::string_view authorization,
                          const std::string& body) {
  const auto& edge = *around_.edge;
  api_error e;
  if (route_.id == route_id::unknown || (route_.id == route_id::kill && !edge.options.kill_actor) ||
      (route_.id == route_id::drain && !edge.options.drain_node)) {
    e.status = 404;
    e.message = "There is nothing at this path; POST /v1/completions or /v1/chat/completions, or "
                "GET /v1/models, /health, /ready, /metrics, /version";
    e.code = "not_found";
    return send(error_reply(e));
  }
  if (!takes(route_, method)) {
    e.status = 405;
    e.message = fmt::format("{} takes only {}", route_.label, route_.allow);
    e.code = "method_not_allowed";
    auto r = error_reply(e);
    r.headers.emplace_back("Allow", route_.allow);
    return send(r);
  }
  if (method == "OPTIONS")
    return send({204, {}, {}, {{"Allow", std::string{route_.allow}}}});
  if (route_.guarded && edge.keys && !edge.keys->allow(authorization)) {
    e = to_api_error(
        {errc::unauthorized, authorization.empty()
                                 ? "No API key was given; send the header Authorization: Bearer KEY"
                                 : "The API key is not known here"});
    return send(error_reply(e));
  }
  if (route_.id == route_id::completions || route_.id == route_id::chat)
    return open_answer(body);
  send(answer_plain(edge, route_, body));
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
  auto wake = [io = around_.io, weak = weak_from_this()] {
    if (auto alive = io.lock())
      asio::post(*alive, [weak] {
        if (auto self = weak.lock())
          self->pump();
      });
  };
  answer_ = std::make_unique<answer>(
      std::move(*request), *model,
      answer::origin{next_id(), arrival_, edge.numbers, std::move(wake), edge.desk->open_answer()});
  answer_->begin();
}

void connection::pump() {
  if (!answer_ || writing_)
    return;
  auto out = answer_->take();
  const bool streams = answer_->stream();
  if (out.end)
    answer_.reset();
  if (out.refused)
    return send(error_reply(*out.refused));
  if (streams)
    return stream(std::move(out));
  if (!out.end)
    return;
  reply r;
  r.body = std::move(out.bytes);
  send(r);
}

void connection::stream(answer::output out) {
  if (out.bytes.empty())
    return;
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
  bytes += facts_.chunked ? chunk_of(out.bytes) : out.bytes;
  if (out.end && facts_.chunked)
    bytes += last_chunk();
  write(std::move(bytes));
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

void connection::write(std::string bytes) {
  writing_ = true;
  out_ = std::move(bytes);
  sent_ = 0;
  write_some();
}

void connection::write_some() {
  arm(around_.edge->options.slow_reader_timeout);
  socket_.async_write_some(
      asio::buffer(out_.data() + sent_, out_.size() - sent_),
      [self = shared_from_this()](error_code ec, std::size_t n) { self->on_written(ec, n); });
}

void connection::on_written(error_code ec, std::size_t bytes) {
  if (phase_ == phase::closed)
    return;
  if (ec)
    return close();
  sent_ += bytes;
  if (sent_ < out_.size())
    return write_some();
  writing_ = false;
  out_.clear();
  timer_.cancel();
  ++alarms_;
  if (answer_)
    return pump();
  finish_exchange();
}

void connection::finish_exchange() {
  if (!facts_.keep_alive || client_gone_ || winding_down_)
    return linger();
  advance();
}

void connection::linger() {
  phase_ = phase::lingering;
  error_code ignored;
  socket_.shutdown(tcp::socket::shutdown_send, ignored);
  if (client_gone_)
    return close();
  // Closing with unread bytes would make the system throw the answer away; so they are read and
  // dropped.
  buffer_.clear();
  arm(linger_time);
  read();
}

void connection::close() {
  if (phase_ == phase::closed)
    return;
  phase_ = phase::closed;
  answer_.reset();
  timer_.cancel();
  error_code ignored;
  socket_.close(ignored);
  around_.closed(this);
}

void connection::arm(std::chrono::milliseconds after) {
  timer_.expires_after(after);
  timer_.async_wait([weak = weak_from_this(), alarm = ++alarms_](error_code ec) {
    const auto self = weak.lock();
    if (!ec && self && self->alarms_ == alarm)
      self->on_timeout();
  });
}

void connection::on_timeout() {
  if (phase_ == phase::reading) {
    api_error e;
    e.status = 408;
    e.message = "The request did not arrive in time";
    e.code = "request_timeout";
    return refuse_bytes(e);
  }
  if (phase_ == phase::answering && writing_) {
    around_.edge->numbers->slow_reader_cut();
    log_info("edge: a client that reads nothing was cut off");
    return cut();
  }
  close();
}

std::string connection::next_id() { return fmt::format("{:016x}{:08x}", around_.id, exchanges_); }

} // namespace troupe::actors
