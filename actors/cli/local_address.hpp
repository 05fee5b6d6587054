#pragma once

#include "troupe/base/error.hpp"

#include <string>

namespace troupe::cli {

/// Whether `host` is an address of this machine. Looks names up, which may take seconds.
/// @errors not_found: the name does not resolve
[[nodiscard]] result<bool> is_local(const std::string& host);

} // namespace troupe::cli
