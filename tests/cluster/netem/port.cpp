#include "tests/cluster/netem/port.hpp"

#include <fmt/core.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>

namespace netem {

namespace {

using troupe::errc;
using troupe::fail;
using troupe::result;

tl::unexpected<troupe::error> failed(const char* what) {
  const auto code = errno == EPERM || errno == EACCES ? errc::unauthorized : errc::io_failure;
  return fail(code, fmt::format("{}: {}", what, std::strerror(errno)));
}

ifreq request(const char* interface) {
  ifreq out{};
  std::strncpy(out.ifr_name, interface, IFNAMSIZ - 1);
  return out;
}

sockaddr ipv4(const char* text) {
  sockaddr_in in{};
  in.sin_family = AF_INET;
  ::inet_pton(AF_INET, text, &in.sin_addr);
  sockaddr out{};
  std::memcpy(&out, &in, sizeof out);
  return out;
}

bool set_up(int control, const char* interface) {
  auto how = request(interface);
  if (::ioctl(control, SIOCGIFFLAGS, &how) != 0)
    return false;
  how.ifr_flags = static_cast<short>(how.ifr_flags | IFF_UP | IFF_RUNNING);
  return ::ioctl(control, SIOCSIFFLAGS, &how) == 0;
}

/// Runs in a thread that has left the program's namespace.
result<void> furnish(port& to, std::size_t number) {
  to.space = ::open("/proc/thread-self/ns/net", O_RDONLY);
  to.tap = ::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (to.space < 0 || to.tap < 0)
    return failed("/dev/net/tun cannot be opened");
  // No chatter of IPv6 between the nodes; a kernel without IPv6 has no such file.
  if (const int six = ::open("/proc/sys/net/ipv6/conf/all/disable_ipv6", O_WRONLY); six >= 0) {
    static_cast<void>(!::write(six, "1", 1));
    ::close(six);
  }
  auto how = request("eth0");
  how.ifr_flags = IFF_TAP | IFF_NO_PI;
  if (::ioctl(to.tap, TUNSETIFF, &how) != 0)
    return failed("no TAP device");
  const int control = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  how = request("eth0");
  how.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  how.ifr_hwaddr.sa_data[0] = 2;
  how.ifr_hwaddr.sa_data[5] = static_cast<char>(number + 1);
  bool good = ::ioctl(control, SIOCSIFHWADDR, &how) == 0;
  how = request("eth0");
  how.ifr_addr = ipv4(to.ip.c_str());
  good = good && ::ioctl(control, SIOCSIFADDR, &how) == 0;
  how.ifr_netmask = ipv4("255.255.255.0");
  good = good && ::ioctl(control, SIOCSIFNETMASK, &how) == 0;
  good = good && set_up(control, "eth0") && set_up(control, "lo");
  ::close(control);
  if (!good)
    return failed("eth0 cannot be set up");
  return {};
}

} // namespace

result<port> make_port(const std::string& name, std::size_t number) {
  port out{.name = name, .ip = fmt::format("10.77.0.{}", number + 1)};
  result<void> state;
  // A thread can leave for a new namespace alone.
  std::thread maker{[&] {
    if (::unshare(CLONE_NEWNET) == 0)
      state = furnish(out, number);
    else
      state = failed("no network namespace");
  }};
  maker.join();
  if (!state)
    return fail(state.error());
  return out;
}

} // namespace netem
