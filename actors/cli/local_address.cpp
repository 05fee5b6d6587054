#include "actors/cli/local_address.hpp"

#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>
#include <memory>

namespace troupe::cli {

namespace {

bool same_host(const sockaddr& a, const sockaddr& b) {
  if (a.sa_family != b.sa_family)
    return false;
  if (a.sa_family == AF_INET)
    return reinterpret_cast<const sockaddr_in&>(a).sin_addr.s_addr ==
           reinterpret_cast<const sockaddr_in&>(b).sin_addr.s_addr;
  return a.sa_family == AF_INET6 &&
         std::memcmp(&reinterpret_cast<const sockaddr_in6&>(a).sin6_addr,
                     &reinterpret_cast<const sockaddr_in6&>(b).sin6_addr, sizeof(in6_addr)) == 0;
}

/// 127.0.0.0/8 is this machine, whatever address an interface names.
bool is_loopback(const sockaddr& a) {
  constexpr unsigned loopback_net = 127;
  return a.sa_family == AF_INET &&
         ntohl(reinterpret_cast<const sockaddr_in&>(a).sin_addr.s_addr) >> 24 == loopback_net;
}

bool is_ours(const sockaddr& a) {
  if (is_loopback(a))
    return true;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0)
    return false;
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> owner{list, freeifaddrs};
  for (const auto* at = list; at != nullptr; at = at->ifa_next)
    if (at->ifa_addr != nullptr && same_host(*at->ifa_addr, a))
      return true;
  return false;
}

} // namespace

result<bool> is_local(const std::string& host) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  if (const auto code = getaddrinfo(host.c_str(), nullptr, &hints, &list); code != 0)
    return fail(errc::not_found, "the name '" + host + "' does not resolve (" + gai_strerror(code) +
                                     "); mend the name, DNS or /etc/hosts");
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner{list, freeaddrinfo};
  for (const auto* at = list; at != nullptr; at = at->ai_next)
    if (is_ours(*at->ai_addr))
      return true;
  return false;
}

} // namespace troupe::cli
