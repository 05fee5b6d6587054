#include "actors/edge/grpc/grpc_server.hpp"

#include "actors/edge/grpc/inference_service.hpp"
#include "actors/edge/grpc/stream_reactor.hpp"
#include "troupe/base/log.hpp"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/steady_timer.hpp>
#include <fmt/core.h>
#include <grpc/support/log.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <future>
#include <thread>
#include <utility>

namespace troupe::actors {

namespace {

namespace asio = boost::asio;

/// How old the answers of grpc.health.v1 may be.
constexpr std::chrono::milliseconds health_interval{100};
constexpr const char* service_name = "inference.GRPCInferenceService";

error bind_error(const grpc_options& o) {
  return {errc::io_failure,
          fmt::format("cannot listen for gRPC on {}:{}; stop the program that listens there, or "
                      "choose another host and port (edges.grpc in the cluster file)",
                      o.host, o.port)};
}

/// gRPC's own sentences are for those who look for them: what concerns people is an error of ours.
void log_quietly(gpr_log_func_args* line) { log_debug("gRPC: {}", line->message); }

} // namespace

struct grpc_server::impl {
  std::shared_ptr<kserve::surroundings> edge = std::make_shared<kserve::surroundings>();
  std::unique_ptr<::grpc::Service> methods;
  std::unique_ptr<::grpc::Server> server;
  asio::executor_work_guard<asio::io_context::executor_type> work{edge->io->get_executor()};
  asio::steady_timer pulse{*edge->io};
  bool ending = false;
  std::thread thread;
  int port = 0;

  bool listen(const grpc_options& o) {
    const bool v6 = o.host.find(':') != std::string::npos;
    ::grpc::ServerBuilder builder;
    builder.AddListeningPort(fmt::format("{}{}{}:{}", v6 ? "[" : "", o.host, v6 ? "]" : "", o.port),
                             ::grpc::InsecureServerCredentials(), &port);
    // Two processes on one port would each get some of the clients.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, o.max_streams);
    builder.SetMaxReceiveMessageSize(o.max_message_bytes);
    builder.RegisterService(methods.get());
    server = builder.BuildAndStart();
    return server != nullptr && port != 0;
  }

  /// Says by grpc.health.v1, which gRPC itself serves, what ServerReady says. On the edge's thread.
  void tell_health() {
    if (ending)
      return;
    const bool ready = edge->around->ready();
    auto* health = server->GetHealthCheckService();
    health->SetServingStatus("", ready);
    health->SetServingStatus(service_name, ready);
    pulse.expires_after(health_interval);
    pulse.async_wait([this](const auto& failed) {
      if (!failed)
        tell_health();
    });
  }

  /// Comes back when the edge's thread says nothing more of its health.
  void end_health() {
    std::promise<void> ended;
    asio::post(*edge->io, [&] {
      ending = true;
      pulse.cancel();
      ended.set_value();
    });
    ended.get_future().wait();
  }

  void run() {
    while (true)
      try {
        edge->io->run();
        return;
      } catch (const std::exception& e) {
        // Only out of memory gets here; the response that caused it is lost, the others go on.
        log_error("gRPC edge: {}", e.what());
      }
  }
};

grpc_server::grpc_server(std::unique_ptr<impl> parts) : impl_{std::move(parts)} {}

grpc_server::~grpc_server() { stop(std::chrono::milliseconds{0}); }

result<std::unique_ptr<grpc_server>> grpc_server::start(const grpc_options& options,
                                                        std::shared_ptr<kserve::service> kserve) {
  gpr_set_log_function(log_quietly);
  ::grpc::EnableDefaultHealthCheckService(true);
  auto parts = std::make_unique<impl>();
  parts->edge->around = std::move(kserve);
  if (options.api_keys_file) {
    auto keys = api_keys::load(*options.api_keys_file);
    if (!keys)
      return fail(keys.error());
    parts->edge->keys = std::move(*keys);
  }
  parts->methods = kserve::make_inference_service(parts->edge);
  if (!parts->listen(options))
    return fail(bind_error(options));
  asio::post(*parts->edge->io, [raw = parts.get()] { raw->tell_health(); });
  parts->thread = std::thread{[raw = parts.get()] { raw->run(); }};
  return std::make_unique<grpc_server>(std::move(parts));
}

std::uint16_t grpc_server::port() const noexcept { return static_cast<std::uint16_t>(impl_->port); }

void grpc_server::wind_down() {
  std::vector<std::shared_ptr<kserve::stream_reactor>> all;
  {
    const std::lock_guard lock{impl_->edge->mutex};
    impl_->edge->winding_down = true;
    for (const auto& [_, weak] : impl_->edge->streams)
      if (auto stream = weak.lock())
        all.push_back(std::move(stream));
  }
  for (const auto& stream : all)
    stream->wind_down();
}

void grpc_server::stop(std::chrono::milliseconds deadline) {
  if (!impl_->thread.joinable())
    return;
  wind_down();
  impl_->end_health();
  impl_->server->Shutdown(std::chrono::system_clock::now() + deadline);
  // Waits until gRPC has let go of every call.
  impl_->server.reset();
  impl_->work.reset();
  impl_->thread.join();
}

} // namespace troupe::actors
