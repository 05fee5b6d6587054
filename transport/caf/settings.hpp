#pragma once

#include "transport/caf/type_table.hpp"
#include "troupe/transport/ucx.hpp"

#include <caf/all.hpp>

namespace troupe::net::seam {

/// What the group "wire" of a configuration says; see wire.
struct settings {
  ucx::options how;
  bool all_inline = false;
  type_table types;
  /// See wire, "full-queue".
  bool keep_all = false;
};

/// Where wire::agree_on() keeps its parts: a dictionary of hashes.
inline constexpr auto agree_on_key = "wire.agree-on";

/// @errors not_found, unauthorized, invalid_argument: the secret's file
[[nodiscard]] result<settings> read_settings(const caf::actor_system_config& cfg);

} // namespace troupe::net::seam
