#include "transport/ucx/resolve.hpp"

#include <fmt/core.h>

#include <netdb.h>
#include <netinet/in.h>

#include <cstring>
#include <memory>

namespace troupe::net::ucx {

namespace {

int look_up(const address& where, int flags, socket_address& out) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  const auto port = std::to_string(where.port);
  const auto* host = where.host == "localhost" ? "127.0.0.1" : where.host.c_str();
  addrinfo* found = nullptr;
  const auto status = getaddrinfo(host, port.c_str(), &hints, &found);
  if (status != 0)
    return status;
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner{found, &freeaddrinfo};
  std::memcpy(&out.storage, found->ai_addr, found->ai_addrlen);
  out.bytes = found->ai_addrlen;
  return 0;
}

} // namespace

std::optional<socket_address> numeric(const address& where) {
  socket_address out;
  if (look_up(where, AI_NUMERICHOST, out) != 0)
    return {};
  return out;
}

result<socket_address> resolve(const address& where) {
  socket_address out;
  if (const auto status = look_up(where, 0, out); status != 0)
    return fail(errc::not_found, fmt::format("the host of {} cannot be found: {}", to_string(where),
                                             gai_strerror(status)));
  return out;
}

std::uint16_t port_of(const socket_address& where) noexcept {
  if (where.storage.ss_family == AF_INET6) {
    sockaddr_in6 six{};
    std::memcpy(&six, &where.storage, sizeof six);
    return ntohs(six.sin6_port);
  }
  sockaddr_in four{};
  std::memcpy(&four, &where.storage, sizeof four);
  return ntohs(four.sin_port);
}

} // namespace troupe::net::ucx
