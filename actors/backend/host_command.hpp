#pragma once

#include <string>
#include <vector>

namespace troupe::actors {

/// What set_host_command() was given last: the program and its arguments that host a backend in a
/// process of its own. Empty when the program has not said. Thread-safe.
[[nodiscard]] std::vector<std::string> host_command();

} // namespace troupe::actors
