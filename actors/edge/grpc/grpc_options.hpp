#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace troupe::actors {

/// How the gRPC edge listens and what it allows. Its memory is bounded by max_streams *
/// max_message_bytes and the answers in flight.
struct grpc_options {
  std::string host = "127.0.0.1";
  /// 0 lets the system choose.
  std::uint16_t port = 8001;
  /// A larger request is answered with RESOURCE_EXHAUSTED.
  std::int32_t max_message_bytes = 64 << 20;
  /// Calls in flight of one connection; more wait in the client.
  std::int32_t max_streams = 1024;
  /// Lines "sha256:<hex of the key>  label". Without a file, no key is asked for.
  std::optional<std::filesystem::path> api_keys_file;
};

} // namespace troupe::actors
