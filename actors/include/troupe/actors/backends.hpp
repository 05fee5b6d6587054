#pragma once

#include "troupe/config/backend_needs.hpp"

namespace troupe::actors {

/// Opens the library of a backend that is no part of the program, and asks it what its model needs;
/// for config::build_capabilities::ask_backend.
[[nodiscard]] result<config::backend_needs> ask_backend(const config::backend_question& question);

} // namespace troupe::actors
