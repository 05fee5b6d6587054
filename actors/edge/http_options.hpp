#pragma once

#include "troupe/base/error.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace troupe::actors {

/// How one HTTP edge listens and what it allows. The limits bound its memory: at most
/// max_connections * (max_header_bytes + 2 * max_body_bytes), the tensors and the answers in
/// flight.
struct http_options {
  std::string host = "127.0.0.1";
  /// 0 lets the system choose; http_server::port() says which.
  std::uint16_t port = 8000;
  /// A larger body is answered with 413.
  std::uint64_t max_body_bytes = 4U << 20U;
  /// The same of the bodies of /v2/.../infer, which hold tensors, also when they are unpacked, and
  /// of load requests, which hold files. The larger of the two counts for them.
  std::uint64_t max_tensor_body_bytes = 64U << 20U;
  /// A larger head is answered with 431.
  std::uint32_t max_header_bytes = 16U << 10U;
  /// For a whole request, head and body, to arrive; then 408.
  std::chrono::milliseconds header_timeout{std::chrono::seconds{10}};
  /// How long a connection may stay open between requests.
  std::chrono::milliseconds idle_timeout{std::chrono::seconds{75}};
  /// A reader that takes nothing for so long, while an answer waits for it, is cut off.
  std::chrono::milliseconds slow_reader_timeout{std::chrono::seconds{30}};
  /// Further connections are answered with 503 and closed.
  std::uint32_t max_connections = 1024;
  /// Prompts of one /v1/completions request; more are answered with 400.
  std::uint32_t max_prompts_per_request = 64;
  /// Requests that the whole cluster takes at a time (limits.max_queued_requests): a body of more
  /// prompts than that could never be taken and is answered with 400.
  std::uint32_t max_queued_requests = 4096;
  /// The kernel's send buffer of each connection; 0 leaves it to the system.
  std::uint32_t send_buffer_bytes = 0;
  /// Nothing is there but /metrics: a door for those who watch.
  bool only_metrics = false;
  /// Lines "sha256:<hex of the key>  label". Without a file, no key is asked for.
  std::optional<std::filesystem::path> api_keys_file;
  /// /ready says no when no step was completed, and no replica answered, for so long.
  std::chrono::milliseconds ready_window{std::chrono::seconds{30}};
  /// What /version answers.
  std::string version = "0.1.0";
  /// Opens POST /troupe/v1/debug/kill {"actor": kind} for tests of failures: called with the kind
  /// on the edge's thread, it must not block. Empty: the route does not exist.
  std::function<result<void>(std::string_view kind)> kill_actor;
  /// Carries out POST /troupe/v1/drain {"node": NAME, "deadline_s": 30, "stay": false}; it must not
  /// block. Empty: the route does not exist.
  std::function<result<void>(std::string_view node, std::chrono::milliseconds deadline, bool stay)>
      drain_node;
};

} // namespace troupe::actors
