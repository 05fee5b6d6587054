#pragma once

#include <string>
#include <vector>

namespace troupe::actors {

/// The architectures of config.json that this build's engine has recipes for; for
/// config::build_capabilities.
[[nodiscard]] std::vector<std::string> served_architectures();

} // namespace troupe::actors
