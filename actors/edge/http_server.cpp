#include "actors/edge/http_server.hpp"

#include "actors/edge/connection.hpp"
#include "troupe/base/log.hpp"
#include "troupe/base/prng.hpp"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <fmt/core.h>

#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>
#include <unordered_map>

namespace troupe::actors {

namespace asio = boost::asio;
using boost::system::error_code;
using tcp = asio::ip::tcp;

namespace {

/// Clients beyond max_connections that are told so; those beyond them are closed without a word.
constexpr std::size_t max_turned_away = 64;
constexpr std::chrono::milliseconds accept_pause{100};

error bind_error(const http_options& o, const error_code& ec) {
  auto mend = std::string{"check the host and the port in the cluster file"};
  if (ec == asio::error::address_in_use)
    mend = "stop the program that listens there, or choose another port (edges.http in the cluster "
           "file, or --port)";
  else if (ec == asio::error::access_denied)
    mend = "choose a port above 1023, or run with the right to bind this one";
  return {errc::io_failure,
          fmt::format("cannot listen on {}:{}: {}; {}", o.host, o.port, ec.message(), mend)};
}

} // namespace

struct http_server::impl {
  impl(http_options o, std::shared_ptr<front_desk> desk, std::shared_ptr<metrics> numbers,
       std::shared_ptr<kserve::service> kserve) {
    edge = std::make_shared<edge_context>();
    edge->options = std::move(o);
    edge->desk = std::move(desk);
    edge->numbers = std::move(numbers);
    edge->kserve =
        kserve ? std::move(kserve) : std::make_shared<kserve::service>(edge->desk, edge->numbers);
  }

  result<void> listen() {
    const auto& o = edge->options;
    error_code ec;
    tcp::resolver resolver{*io};
    const auto found = resolver.resolve(o.host, std::to_string(o.port), tcp::resolver::passive, ec);
    if (ec || found.empty())
      return fail(bind_error(o, ec));
    const auto endpoint = found.begin()->endpoint();
    acceptor.open(endpoint.protocol(), ec);
    if (!ec)
      acceptor.set_option(tcp::acceptor::reuse_address{true}, ec);
    if (!ec)
      acceptor.bind(endpoint, ec);
    if (!ec)
      acceptor.listen(asio::socket_base::max_listen_connections, ec);
    if (!ec)
      port = acceptor.local_endpoint(ec).port();
    if (ec)
      return fail(bind_error(o, ec));
    return {};
  }

  void accept() {
    acceptor.async_accept([this](error_code ec, tcp::socket socket) {
      if (ec == asio::error::operation_aborted || !acceptor.is_open())
        return;
      if (!ec) {
        welcome(std::move(socket));
        return accept();
      }
      // Out of descriptors, most likely: what is open goes on, and the next try comes soon.
      log_warn("edge: accept failed: {}", ec.message());
      pause.expires_after(accept_pause);
      pause.async_wait([this](error_code e) {
        if (!e)
          accept();
      });
    });
  }

  void welcome(tcp::socket socket) {
    if (open.size() >= edge->options.max_connections + max_turned_away)
      return;
    const bool full = open.size() >= edge->options.max_connections;
    auto client = std::make_shared<connection>(
        std::move(socket),
        connection::surroundings{edge, io, [this](connection* c) { forget(c); }, ids()});
    open.emplace(client.get(), client);
    edge->numbers->http_connections(open.size());
    if (full)
      client->turn_away();
    else
      client->start();
  }

  void forget(connection* c) {
    open.erase(c);
    edge->numbers->http_connections(open.size());
    if (!open.empty() || acceptor.is_open())
      return;
    const std::lock_guard lock{mutex};
    empty = true;
    changed.notify_all();
  }

  std::vector<std::shared_ptr<connection>> all() const {
    std::vector<std::shared_ptr<connection>> list;
    for (const auto& [_, c] : open)
      list.push_back(c);
    return list;
  }

  void close_door() {
    error_code ignored;
    acceptor.close(ignored);
    pause.cancel();
    for (const auto& c : all())
      c->wind_down();
    if (!open.empty())
      return;
    const std::lock_guard lock{mutex};
    empty = true;
    changed.notify_all();
  }

  void run() {
    while (true)
      try {
        io->run();
        return;
      } catch (const std::exception& e) {
        // Only out of memory gets here; the request that caused it is lost, the others go on.
        log_error("edge: {}", e.what());
      }
  }

  std::shared_ptr<asio::io_context> io = std::make_shared<asio::io_context>(1);
  asio::executor_work_guard<asio::io_context::executor_type> work{io->get_executor()};
  tcp::acceptor acceptor{*io};
  asio::steady_timer pause{*io};
  std::shared_ptr<edge_context> edge;
  std::unordered_map<connection*, std::shared_ptr<connection>> open;
  splitmix64 ids{std::random_device{}() | (std::uint64_t{std::random_device{}()} << 32U)};
  std::uint16_t port = 0;
  std::thread thread;
  std::mutex mutex;
  std::condition_variable changed;
  bool empty = false;
};

http_server::http_server(std::unique_ptr<impl> parts) : impl_{std::move(parts)} {}

http_server::~http_server() { stop(std::chrono::milliseconds{0}); }

result<std::unique_ptr<http_server>> http_server::start(http_options options,
                                                        std::shared_ptr<front_desk> desk,
                                                        std::shared_ptr<metrics> numbers,
                                                        std::shared_ptr<kserve::service> kserve) {
  auto parts = std::make_unique<impl>(std::move(options), std::move(desk), std::move(numbers),
                                      std::move(kserve));
  if (const auto& file = parts->edge->options.api_keys_file) {
    auto keys = api_keys::load(*file);
    if (!keys)
      return fail(keys.error());
    parts->edge->keys = std::move(*keys);
  }
  if (auto listening = parts->listen(); !listening)
    return fail(listening.error());
  parts->accept();
  parts->thread = std::thread{[raw = parts.get()] { raw->run(); }};
  return std::make_unique<http_server>(std::move(parts));
}

std::uint16_t http_server::port() const noexcept { return impl_->port; }

void http_server::stop_accepting() {
  asio::post(*impl_->io, [raw = impl_.get()] { raw->close_door(); });
}

void http_server::stop(std::chrono::milliseconds deadline) {
  if (!impl_->thread.joinable())
    return;
  stop_accepting();
  {
    std::unique_lock lock{impl_->mutex};
    impl_->changed.wait_for(lock, deadline, [this] { return impl_->empty; });
  }
  asio::post(*impl_->io, [raw = impl_.get()] {
    for (const auto& c : raw->all())
      c->cut();
    raw->work.reset();
  });
  impl_->thread.join();
}

} // namespace troupe::actors
