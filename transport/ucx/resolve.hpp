#pragma once

#include "troupe/base/error.hpp"
#include "troupe/transport/node_id.hpp"

#include <sys/socket.h>

#include <optional>

namespace troupe::net::ucx {

struct socket_address {
  sockaddr_storage storage{};
  socklen_t bytes = 0;
};

/// The address when its host is numeric or "localhost"; nothing when a name has to be looked up.
[[nodiscard]] std::optional<socket_address> numeric(const address& where);
/// Looks the host up, which may take seconds. @errors not_found
[[nodiscard]] result<socket_address> resolve(const address& where);
[[nodiscard]] std::uint16_t port_of(const socket_address& where) noexcept;

} // namespace troupe::net::ucx
