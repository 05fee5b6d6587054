#include "actors/edge/test_peers.hpp"

#include <arpa/inet.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>
#include <utility>

namespace troupe::actors::testing {

namespace {

constexpr std::chrono::seconds limit{10};

backend_actor::behavior_type fake(backend_actor::pointer self,
                                  std::shared_ptr<backend_script> script) {
  (void)self;
  return {
      [script](execute_atom, const inference_request_ptr& request, const response_sink_ptr& sink) {
        ++script->executed;
        script->execute(*request, sink);
      },
      [script](abandon_atom, const response_sink_ptr&) { ++script->abandoned; }};
}

} // namespace

backend_actor spawn_fake(caf::actor_system& system, std::shared_ptr<backend_script> script) {
  return system.spawn(fake, std::move(script));
}

response_part piece(std::string text) {
  response_part p;
  p.text = std::move(text);
  p.tokens = 1;
  return p;
}

response_part final_piece(std::string text) {
  auto p = piece(std::move(text));
  p.finish = engine::finish_reason::stop;
  p.counts = {4, 2, 0};
  return p;
}

raw_client::raw_client(std::uint16_t port, int receive_buffer_bytes)
    : fd_{socket(AF_INET, SOCK_STREAM, 0)} {
  if (receive_buffer_bytes > 0)
    setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof receive_buffer_bytes);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0)
    close();
}

raw_client::~raw_client() { close(); }

void raw_client::close() {
  if (fd_ >= 0)
    ::close(fd_);
  fd_ = -1;
}

void raw_client::send(std::string_view bytes) const {
  while (!bytes.empty()) {
    const auto n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0)
      return;
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
}

void raw_client::send_post(std::string_view path, std::string_view body) const {
  send(fmt::format("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{}", path, body.size(),
                   body));
}

const std::string& raw_client::read_until(std::string_view mark) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (mark.empty() || seen_.find(mark) == std::string::npos) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        end - std::chrono::steady_clock::now());
    pollfd entry{fd_, POLLIN, 0};
    if (left.count() <= 0 || poll(&entry, 1, static_cast<int>(left.count())) <= 0) {
      seen_ += "<timed out>";
      break;
    }
    char bytes[4096];
    const auto n = recv(fd_, bytes, sizeof bytes, 0);
    if (n <= 0)
      break;
    seen_.append(bytes, static_cast<std::size_t>(n));
  }
  return seen_;
}

bool eventually(const std::function<bool()>& done) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!done()) {
    if (std::chrono::steady_clock::now() > end)
      return false;
    std::this_thread::sleep_for(std::chrono::milliseconds{1});
  }
  return true;
}

} // namespace troupe::actors::testing
