#pragma once

#include "transport/hello.hpp"

namespace troupe::net::ucx {

/// This process, as others on the same host can look it up.
[[nodiscard]] process_identity this_process();
/// True when the process certainly does not run any more. A process of another host is never known
/// to be gone, nor is one that this user may not see.
[[nodiscard]] bool is_gone(const process_identity& which, const process_identity& here);

} // namespace troupe::net::ucx
