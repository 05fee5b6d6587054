#include "actors/edge/connection.hpp"

#include "actors/edge/request_head.hpp"
#include "troupe/base/log.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/asio/socket_base.hpp>
#include <boost/beast/core/buffer_traits.hpp>
#include <boost/beast/http/error.hpp>

#include <algorithm>

namespace troupe::actors {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

namespace {

/// What is sent ahead of a short answer waits in the kernel once so much of it is here.
constexpr std::size_t ahead_bytes = 64U << 10U;
constexpr std::chrono::milliseconds linger_time{2000};

std::uint64_t largest_body(const http_options& o) {
  return std::max(o.max_body_bytes, o.max_tensor_body_bytes);
}

std::uint64_t largest_body(const http_options& o, const route& r) {
  return r.v2 && kserve::takes_much(r.v2->what) ? largest_body(o) : o.max_body_bytes;
}

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
  const std::lock_guard lock{mutex_};
  become_idle();
  read();
}

void connection::turn_away() {
  const std::lock_guard lock{mutex_};
  phase_ = phase::answering;
  facts_.keep_alive = false;
  api_error e = to_api_error({errc::busy, "too many connections; close some, or try again later"});
  e.status = 503;
  send(error_reply(e));
}

void connection::wind_down() {
  const std::lock_guard lock{mutex_};
  winding_down_ = true;
  if (phase_ == phase::idle)
    close();
}

void connection::cut() {
  const std::lock_guard lock{mutex_};
  cut_off();
}

void connection::cut_off() {
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
  socket_.async_read_some(asio::buffer(fresh_),
                          [self = shared_from_this()](error_code ec, std::size_t n) {
                            const std::lock_guard lock{self->mutex_};
                            self->on_read(ec, n);
                          });
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
    return cut_off();
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
  parser_->body_limit(largest_body(around_.edge->options));
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
      return refuse_bytes(refusal_of(http::error::header_limit));
    if (!head_seen_ && parser_->is_header_done()) {
      head_seen_ = true;
      parser_->eager(true);
      if (const auto refused = judge_head())
        return refuse_bytes(*refused);
    }
    if (ec && ec != http::error::need_more)
      return refuse_bytes(refusal_of(ec));
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
  send_error(e);
}

std::optional<api_error> connection::judge_head() {
  const auto& head = parser_->get();
  const auto target = head.target();
  route_ = around_.edge->route_of({target.data(), target.size()});
  const bool tensors = route_.v2 && kserve::takes_tensors(route_.v2->what);
  if (auto refused = refuse_head(head, tensors))
    return refused;
  const auto most = largest_body(around_.edge->options, route_);
  parser_->body_limit(most);
  if (parser_->content_length().value_or(0) > most)
    return body_too_large(most);
  return std::nullopt;
}

/// A head may be refused before its end, and has named its path then all the same.
api_error connection::refusal_of(error_code ec) {
  if (!head_seen_) {
    const auto target = parser_->get().target();
    route_ = around_.edge->route_of({target.data(), target.size()});
  }
  return ec == http::error::body_limit ? body_too_large(largest_body(around_.edge->options, route_))
                                       : syntax_error(ec);
}

void connection::write(std::string bytes) {
  writing_ = true;
  out_ = std::move(bytes);
  sent_ = 0;
  write_some();
}

void connection::write_some() {
  arm(around_.edge->options.slow_reader_timeout);
  socket_.async_write_some(asio::buffer(out_.data() + sent_, out_.size() - sent_),
                           [self = shared_from_this()](error_code ec, std::size_t n) {
                             const std::lock_guard lock{self->mutex_};
                             self->on_written(ec, n);
                           });
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
  left_.reset();
  timer_.cancel();
  error_code ignored;
  socket_.close(ignored);
  around_.closed(this);
}

void connection::arm(std::chrono::milliseconds after) {
  timer_.expires_after(after);
  timer_.async_wait([weak = weak_from_this(), alarm = ++alarms_](error_code ec) {
    const auto self = weak.lock();
    if (ec || !self)
      return;
    const std::lock_guard lock{self->mutex_};
    if (self->alarms_ == alarm)
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
    return cut_off();
  }
  close();
}

} // namespace troupe::actors
