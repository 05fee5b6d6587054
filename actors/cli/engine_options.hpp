#pragma once

#include "actors/cli/config_file.hpp"
#include "troupe/actors/architectures.hpp"
#include "troupe/actors/backends.hpp"

namespace troupe::cli {

/// As load_options_of, for commands that start or judge what this program serves.
[[nodiscard]] inline config::load_options engine_options_of(const file_options& o) {
  auto made = load_options_of(o);
  made.capabilities.ask_backend = actors::ask_backend;
  made.capabilities.architectures = actors::served_architectures();
  return made;
}

} // namespace troupe::cli
