#pragma once

#include "actors/edge/edge_actor.hpp"
#include "actors/edge/http_server.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::actors::testing {

/// What the fake backend does with a request and what it has seen.
struct backend_script {
  /// Called on the backend's thread.
  std::function<void(const inference_request&, response_sink_ptr)> execute;
  std::atomic<int> executed{0};
  std::atomic<int> abandoned{0};
};

[[nodiscard]] backend_actor spawn_fake(caf::actor_system& system,
                                       std::shared_ptr<backend_script> script);

/// A part, and the part that ends an answer.
[[nodiscard]] response_part piece(std::string text);
[[nodiscard]] response_part final_piece(std::string text);

/// A client that sends and reads raw bytes.
class raw_client {
public:
  explicit raw_client(std::uint16_t port, int receive_buffer_bytes = 0);
  ~raw_client();
  raw_client(const raw_client&) = delete;
  raw_client& operator=(const raw_client&) = delete;

  void send(std::string_view bytes) const;
  void send_post(std::string_view path, std::string_view body) const;
  /// Reads until `mark` has come, the peer closes or 10 s are over; returns all that has come so
  /// far.
  const std::string& read_until(std::string_view mark);
  /// Reads until the peer closes.
  const std::string& read_all() { return read_until({}); }
  void close();

private:
  int fd_;
  std::string seen_;
};

/// Whether `done` became true within 10 s.
[[nodiscard]] bool eventually(const std::function<bool()>& done);

} // namespace troupe::actors::testing
