#pragma once

#include "troupe/base/error.hpp"

#include <cstddef>
#include <string>

namespace netem {

/// One node: a network namespace of its own whose `eth0` ends at `tap`. The namespace lives as long
/// as a process in it or the descriptor; no name and no mount is left behind.
struct port {
  std::string name;
  std::string ip;
  int tap = -1;
  int space = -1;
};

/// @errors unauthorized: the rights are missing; io_failure
[[nodiscard]] troupe::result<port> make_port(const std::string& name, std::size_t number);

} // namespace netem
