#pragma once

#include "actors/cli/commands.hpp"
#include "troupe/config/load.hpp"

#include <string>

namespace troupe::cli {

/// The options of the command line as those of config's loader.
[[nodiscard]] config::load_options load_options_of(const file_options& o);

/// The API key of TROUPE_API_KEY, or nothing.
[[nodiscard]] std::string environment_api_key();

} // namespace troupe::cli
