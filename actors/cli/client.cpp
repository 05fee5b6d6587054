#include "actors/cli/client.hpp"

#include <utility>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <fmt/core.h>
#include <nlohmann/json.hpp>
#include <poll.h>

#include <charconv>
#include <optional>

namespace troupe::cli {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;
using tcp = asio::ip::tcp;

namespace {

constexpr int poll_ms = 100;
constexpr std::size_t read_bytes = 16U << 10U;
constexpr std::uint64_t max_answer_bytes = 1U << 30U;

using answer_parser = http::response_parser<http::string_body>;

error connect_error(const server_url& s, const error_code& ec) {
  if (ec == asio::error::connection_refused)
    return {errc::io_failure,
            fmt::format("nothing listens on {}:{}: start a cluster with `troupe up "
                        "examples/quickstart/cluster.json`, or name another with --url",
                        s.host, s.port)};
  return {errc::io_failure, fmt::format("cannot reach {}:{}: {}; name the cluster with --url",
                                        s.host, s.port, ec.message())};
}

} // namespace

result<server_url> parse_url(std::string_view url) {
  constexpr std::string_view scheme = "http://";
  if (url.substr(0, 8) == "https://")
    return fail(errc::unsupported,
                fmt::format("{}: https is not supported; put a proxy that speaks "
                            "it in front, and name it with http://",
                            url));
  if (url.substr(0, scheme.size()) == scheme)
    url.remove_prefix(scheme.size());
  else if (url.find("://") != std::string_view::npos)
    return fail(errc::invalid_argument, fmt::format("{}: a URL begins with http://", url));
  server_url made;
  const auto slash = url.find('/');
  auto place = url.substr(0, slash);
  if (slash != std::string_view::npos)
    made.base = url.substr(slash);
  while (!made.base.empty() && made.base.back() == '/')
    made.base.pop_back();
  if (made.base.size() >= 3 && made.base.substr(made.base.size() - 3) == "/v1")
    made.base.resize(made.base.size() - 3);
  const auto colon = place.rfind(':');
  const auto bracket = place.rfind(']');
  if (colon != std::string_view::npos && (bracket == std::string_view::npos || colon > bracket)) {
    made.port = place.substr(colon + 1);
    place = place.substr(0, colon);
  }
  if (place.size() > 2 && place.front() == '[' && place.back() == ']')
    place = place.substr(1, place.size() - 2);
  made.host = place;
  unsigned port = 0;
  const auto* end = made.port.data() + made.port.size();
  const auto read = std::from_chars(made.port.data(), end, port);
  if (made.host.empty() || read.ec != std::errc{} || read.ptr != end || port == 0 || port > 65535)
    return fail(
        errc::invalid_argument,
        fmt::format("'{}' is no URL of a cluster; it looks like http://127.0.0.1:8000", url));
  return made;
}

struct http_client::impl {
  server_url server;
  std::string api_key;
  asio::io_context io;
  std::optional<tcp::socket> socket;

  result<void> connect() {
    error_code ec;
    tcp::resolver resolver{io};
    const auto found = resolver.resolve(server.host, server.port, ec);
    if (ec)
      return fail(connect_error(server, ec));
    socket.emplace(io);
    asio::connect(*socket, found, ec);
    if (ec) {
      socket.reset();
      return fail(connect_error(server, ec));
    }
    socket->set_option(tcp::no_delay{true}, ec);
    return {};
  }

  std::string request_text(const call_options& what) const {
    auto text = fmt::format("{} {}{} HTTP/1.1\r\nHost: {}:{}\r\nUser-Agent: troupe\r\n",
                            what.method, server.base, what.path, server.host, server.port);
    if (!api_key.empty())
      text += fmt::format("Authorization: Bearer {}\r\n", api_key);
    if (!what.body.empty())
      text +=
          fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n", what.body.size());
    return text + "\r\n" + std::string{what.body};
  }

  /// Waits until there is something to read; false: asked to stop.
  bool await_bytes(const call_options& what) {
    while (true) {
      pollfd entry{socket->native_handle(), POLLIN, 0};
      if (poll(&entry, 1, poll_ms) > 0)
        return true;
      if (what.stop && what.stop())
        return false;
    }
  }

  /// Hands over what has been read of a good answer.
  static void drain(answer_parser& parser, const call_options& what) {
    auto& body = parser.get().body();
    if (!what.on_bytes || body.empty() || parser.get().result_int() != 200)
      return;
    const auto bytes = std::exchange(body, {});
    what.on_bytes(bytes);
  }

  result<http_answer> read(const call_options& what) {
    answer_parser parser;
    parser.eager(true);
    parser.body_limit(max_answer_bytes);
    boost::beast::flat_buffer buffer;
    while (!parser.is_done()) {
      if (!await_bytes(what)) {
        socket.reset();
        return fail(errc::cancelled, "stopped");
      }
      error_code ec;
      buffer.commit(socket->read_some(buffer.prepare(read_bytes), ec));
      if (ec == asio::error::eof && parser.is_header_done()) {
        ec = {};
        parser.put_eof(ec);
        drain(parser, what);
        if (!ec)
          break;
      }
      if (ec)
        return broke(ec);
      while (buffer.size() > 0 && !parser.is_done()) {
        const auto used = parser.put(buffer.data(), ec);
        buffer.consume(used);
        if (ec == http::error::need_more || (!ec && used == 0))
          break;
        if (ec)
          return broke(ec);
      }
      drain(parser, what);
    }
    return finish(parser);
  }

  result<http_answer> broke(const error_code& ec) {
    socket.reset();
    return fail(errc::io_failure, fmt::format("the connection to {}:{} broke: {}", server.host,
                                              server.port, ec.message()));
  }

  result<http_answer> finish(answer_parser& parser) {
    if (!parser.keep_alive())
      socket.reset();
    http_answer answer;
    auto message = parser.release();
    answer.status = message.result_int();
    answer.body = std::move(message.body());
    const auto wait = message[http::field::retry_after];
    std::from_chars(wait.data(), wait.data() + wait.size(), answer.retry_after_s);
    return answer;
  }
};

http_client::http_client(server_url server, std::string api_key) : impl_{std::make_unique<impl>()} {
  impl_->server = std::move(server);
  impl_->api_key = std::move(api_key);
}

http_client::~http_client() = default;
http_client::http_client(http_client&&) noexcept = default;
http_client& http_client::operator=(http_client&&) noexcept = default;

result<http_answer> http_client::call(const call_options& what) {
  const bool reused = impl_->socket.has_value();
  if (!reused)
    if (auto connected = impl_->connect(); !connected)
      return fail(connected.error());
  error_code ec;
  const auto text = impl_->request_text(what);
  asio::write(*impl_->socket, asio::buffer(text), ec);
  if (ec && !reused)
    return impl_->broke(ec);
  auto answer = ec ? impl_->broke(ec) : impl_->read(what);
  // The server may have closed an idle connection just now: once more on a fresh one.
  const bool stale = reused && !answer && answer.error().code == errc::io_failure;
  return stale && !what.on_bytes ? call(what) : answer;
}

std::string message_of(const http_answer& answer) {
  const auto body = nlohmann::json::parse(answer.body, nullptr, false);
  if (body.is_object() && body.contains("error") && body["error"].is_object() &&
      body["error"].contains("message") && body["error"]["message"].is_string())
    return body["error"]["message"].get<std::string>();
  return fmt::format("status {}: {}", answer.status, answer.body.substr(0, 200));
}

result<std::string> choose_model(http_client& client, const std::string& wanted) {
  if (!wanted.empty())
    return wanted;
  const auto answer = client.call({.path = "/v1/models"});
  if (!answer)
    return fail(answer.error());
  if (answer->status == 401)
    return fail(errc::unauthorized,
                message_of(*answer) + "; give it with --api-key or TROUPE_API_KEY");
  if (answer->status != 200)
    return fail(errc::internal, message_of(*answer));
  const auto body = nlohmann::json::parse(answer->body, nullptr, false);
  const auto none =
      fail(errc::not_found, "the cluster serves no model yet; look at `troupe status`");
  if (!body.is_object() || !body.contains("data") || !body["data"].is_array() ||
      body["data"].empty())
    return none;
  const auto& first = body["data"][0];
  if (!first.is_object() || !first.contains("id") || !first["id"].is_string())
    return none;
  return first["id"].get<std::string>();
}

} // namespace troupe::cli
