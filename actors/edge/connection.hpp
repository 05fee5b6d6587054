#pragma once

#include "actors/edge/edge_context.hpp"
#include "actors/edge/exchange.hpp"

#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

namespace troupe::actors {

/// One client's connection: requests in, one after the other, answers out.
///
/// A read is outstanding all the time while a generation runs, so that the client's leaving is seen
/// at once; a closed or half-closed read side ends the request. What is sent ahead meanwhile is
/// kept, up to one request of the largest size; a client that sends more is cut off, because its
/// leaving could no longer be seen. Other answers are short, so reads pause behind them instead. At
/// most one write is outstanding; what comes meanwhile is merged in the answer's inbox. Lives in
/// the edge's thread, but for push(), which sends a piece of a stream from the thread that has it;
/// what either touches is behind a mutex that every entry takes.
class connection : public std::enable_shared_from_this<connection> {
public:
  using tcp = boost::asio::ip::tcp;

  struct surroundings {
    std::shared_ptr<const edge_context> edge;
    std::weak_ptr<boost::asio::io_context> io;
    /// Called once, when the connection is closed.
    std::function<void(connection*)> closed;
    /// The first half of the ids of this connection's answers.
    std::uint64_t id = 0;
  };

  connection(tcp::socket socket, surroundings around);

  /// Serves the client until it goes.
  void start();
  /// Answers 503 to a client too many.
  void turn_away();
  /// Closes now when idle, else behind the answer.
  void wind_down();
  /// Closes now; the request in flight is abandoned.
  void cut();

private:
  /// What matters of a request beside its path.
  struct received {
    std::string_view method;
    std::string_view authorization;
    std::string_view content_encoding;
    std::string_view json_length;
    const std::string& body;
  };

  enum class phase { idle, reading, answering, lingering, closed };

  void read();
  void on_read(boost::system::error_code ec, std::size_t bytes);
  void become_idle();
  void begin_request();
  void advance();
  void allow_body();
  void refuse_bytes(const api_error& e);
  void handle();
  void dispatch(const received& request);
  void dispatch_kserve(const received& request);
  void send_error(const api_error& e);
  [[nodiscard]] std::function<void()> waker();
  [[nodiscard]] std::optional<api_error> judge_head();
  [[nodiscard]] api_error refusal_of(boost::system::error_code ec);
  void open_answer(const std::string& body);
  void pump();
  [[nodiscard]] bool push();
  [[nodiscard]] std::string bytes_of(const exchange::output& out);
  void stream(exchange::output out);
  void cut_off();
  void send(const reply& r);
  void write(std::string bytes);
  void write_some();
  void on_written(boost::system::error_code ec, std::size_t bytes);
  void finish_exchange();
  void linger();
  void close();
  void arm(std::chrono::milliseconds after);
  void on_timeout();
  [[nodiscard]] std::string next_id();

  std::mutex mutex_;
  tcp::socket socket_;
  surroundings around_;
  boost::asio::steady_timer timer_;
  /// What the outstanding read fills; apart from `buffer_`, which moves while it is parsed.
  std::array<char, 16U << 10U> fresh_;
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::string_body>> parser_;
  std::unique_ptr<exchange> answer_;
  /// What push() took and left to pump().
  std::optional<exchange::output> left_;
  std::string out_;
  std::size_t sent_ = 0;
  std::size_t head_bytes_ = 0;
  phase phase_ = phase::idle;
  route route_;
  head_facts facts_;
  time_point arrival_{};
  std::uint64_t exchanges_ = 0;
  std::uint64_t alarms_ = 0;
  bool reading_ = false;
  bool writing_ = false;
  bool client_gone_ = false;
  bool winding_down_ = false;
  bool head_only_ = false;
  bool head_sent_ = false;
  bool continued_ = false;
  bool head_seen_ = false;
};

} // namespace troupe::actors
