#pragma once

#include "troupe/transport/ucx.hpp"

#include <caf/all.hpp>

namespace troupe::net::seam {

/// What the group "wire" of a configuration says; see wire.
struct settings {
  ucx::options how;
  bool all_inline = false;
};

/// @errors not_found, unauthorized, invalid_argument: the secret's file
[[nodiscard]] result<settings> read_settings(const caf::actor_system_config& cfg);

/// A hash of the names of all message types that a program has added.
[[nodiscard]] std::uint64_t types_hash(const caf::actor_system_config& cfg);

} // namespace troupe::net::seam
