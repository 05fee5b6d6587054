#pragma once

#include "actors/edge/http_options.hpp"
#include "actors/edge/kserve/service.hpp"
#include "actors/front_desk.hpp"
#include "actors/metrics/metrics.hpp"
#include "troupe/base/error.hpp"

#include <chrono>
#include <cstdint>
#include <memory>

namespace troupe::actors {

/// The HTTP edge, OpenAI's and KServe's APIs: HTTP/1.1 on one port, on a thread of its own.
///
/// It turns requests into execute messages for the backend actors of the front desk and their parts
/// into JSON or server-sent events. It knows nothing of replicas. Whatever a client sends ends in a
/// status and a sentence; no client slows another one down or holds more memory than its request
/// and answer.
class http_server {
public:
  /// Binds and listens; requests are served when it returns.
  /// @errors io_failure: the port is in use or may not be used (host, port and the mend are named),
  /// or
  ///         the key file cannot be read; corrupt_data: a line of the key file is malformed
  /// @param kserve what the KServe edges share; without one the server makes its own
  [[nodiscard]] static result<std::unique_ptr<http_server>>
  start(http_options options, std::shared_ptr<front_desk> desk, std::shared_ptr<metrics> numbers,
        std::shared_ptr<kserve::service> kserve = nullptr);

  /// stop(0).
  ~http_server();
  http_server(const http_server&) = delete;
  http_server& operator=(const http_server&) = delete;

  /// The port that it listens on.
  [[nodiscard]] std::uint16_t port() const noexcept;
  /// Closes the listening socket and idle connections; answers in flight go on. Thread-safe.
  void stop_accepting();
  /// stop_accepting(), then waits for the answers in flight, at most `deadline`, cuts the rest off
  /// (their requests are abandoned) and ends the thread. Blocks; not from the edge's own thread.
  void stop(std::chrono::milliseconds deadline);

  struct impl;
  explicit http_server(std::unique_ptr<impl> parts);

private:
  std::unique_ptr<impl> impl_;
};

} // namespace troupe::actors
