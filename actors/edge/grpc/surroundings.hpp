#pragma once

#include "actors/edge/api_keys.hpp"
#include "actors/edge/kserve/service.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <grpcpp/server_context.h>

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>

namespace troupe::actors::kserve {

class stream_reactor;

/// What all calls of one gRPC edge share. Thread-safe.
struct surroundings {
  std::shared_ptr<service> around;
  std::optional<api_keys> keys;
  /// The thread that hands on what backends have. Not owned: a backend may outlive the edge.
  std::shared_ptr<boost::asio::io_context> io = std::make_shared<boost::asio::io_context>(1);

  std::mutex mutex;
  std::unordered_map<stream_reactor*, std::weak_ptr<stream_reactor>> streams;
  bool winding_down = false;
};

/// Whether the metadata `authorization: Bearer KEY` opens this edge.
[[nodiscard]] bool allowed(const surroundings& edge, const ::grpc::ServerContextBase& context);
/// What a call without a known key ends with.
[[nodiscard]] ::grpc::Status no_key();

/// A wake for kserve::call: pumps the reactor on the edge's thread, while both live.
template <class Reactor>
[[nodiscard]] std::function<void()> waker(const surroundings& edge, std::weak_ptr<Reactor> weak) {
  return [io = std::weak_ptr{edge.io}, weak = std::move(weak)] {
    if (const auto alive = io.lock())
      boost::asio::post(*alive, [weak] {
        if (const auto reactor = weak.lock())
          reactor->pump();
      });
  };
}

} // namespace troupe::actors::kserve
