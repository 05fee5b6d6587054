#include "troupe/transport/node_id.hpp"

#include <fmt/core.h>

#include <charconv>

namespace troupe::net {

std::string to_string(const node_id& id) { return fmt::format("{:016x}{:016x}", id.high, id.low); }

result<node_id> parse_node_id(std::string_view text) {
  node_id id;
  const auto read = [](std::string_view digits, std::uint64_t& out) {
    const auto* end = digits.data() + digits.size();
    const auto [at, error] = std::from_chars(digits.data(), end, out, 16);
    return error == std::errc{} && at == end;
  };
  if (text.size() != 32 || !read(text.substr(0, 16), id.high) || !read(text.substr(16), id.low))
    return fail(errc::invalid_argument,
                fmt::format("'{}' is not a node id: 32 hexadecimal digits", text));
  return id;
}

std::string to_string(const address& where) {
  return where.host.find(':') == std::string::npos ? fmt::format("{}:{}", where.host, where.port)
                                                   : fmt::format("[{}]:{}", where.host, where.port);
}

result<address> parse_address(std::string_view text) {
  const auto colon = text.rfind(':');
  std::uint16_t port = 0;
  if (colon != std::string_view::npos) {
    auto host = text.substr(0, colon);
    const auto digits = text.substr(colon + 1);
    const auto* end = digits.data() + digits.size();
    const auto [at, error] = std::from_chars(digits.data(), end, port);
    const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
    if (bracketed)
      host = host.substr(1, host.size() - 2);
    const bool host_fits =
        !host.empty() && (bracketed || host.find_first_of(":[]") == std::string_view::npos);
    if (host_fits && error == std::errc{} && at == end)
      return address{std::string{host}, port};
  }
  return fail(errc::invalid_argument,
              fmt::format("'{}' is not an address: write HOST:PORT, or [IPV6]:PORT", text));
}

bool is_loopback(const address& where) noexcept {
  const std::string_view host = where.host;
  const bool numeric = host.find_first_not_of("0123456789.") == std::string_view::npos;
  return host == "localhost" || host == "::1" || (numeric && host.starts_with("127."));
}

} // namespace troupe::net
