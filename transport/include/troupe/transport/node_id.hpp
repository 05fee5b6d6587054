#pragma once

#include "troupe/base/error.hpp"

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace troupe::net {

/// One incarnation of a node: 128 random bits, drawn anew at every start. A node that was declared
/// dead comes back under another id, so an id names one uninterrupted life.
struct node_id {
  std::uint64_t high = 0;
  std::uint64_t low = 0;

  friend constexpr auto operator<=>(const node_id&, const node_id&) = default;
  /// False for the id that names nobody.
  constexpr explicit operator bool() const noexcept { return high != 0 || low != 0; }
};

/// 32 hexadecimal digits.
[[nodiscard]] std::string to_string(const node_id& id);
/// The inverse of to_string. @errors invalid_argument
[[nodiscard]] result<node_id> parse_node_id(std::string_view text);

/// Where a node listens. The host is a name or a numeric address; IPv6 goes without brackets.
struct address {
  std::string host;
  std::uint16_t port = 0;

  friend auto operator<=>(const address&, const address&) = default;
};

/// "host:port", with brackets around an IPv6 host.
[[nodiscard]] std::string to_string(const address& where);
/// The inverse of to_string. @errors invalid_argument: no port, or one that is not a number below
/// 65536
[[nodiscard]] result<address> parse_address(std::string_view text);
/// True when the host names this machine and nothing else: "localhost", 127.0.0.0/8 or ::1.
[[nodiscard]] bool is_loopback(const address& where) noexcept;

} // namespace troupe::net

template <>
struct std::hash<troupe::net::node_id> {
  std::size_t operator()(const troupe::net::node_id& id) const noexcept {
    return static_cast<std::size_t>(id.high ^ (id.low * 0x9E3779B97F4A7C15U));
  }
};
