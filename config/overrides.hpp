#pragma once

#include <map>
#include <string>
#include <vector>

#include "config/json_tree.hpp"
#include "config/sink.hpp"

namespace troupe::config {

/// Lays the TROUPE_* variables over the parsed cluster file. A variable nobody reads is a warning.
void apply_environment(json_value& root, const std::map<std::string, std::string>& variables,
                       diagnostic_sink& sink);

/// Lays "path=value" texts over it, in order.
void apply_command_line(json_value& root, const std::vector<std::string>& texts,
                        diagnostic_sink& sink);

} // namespace troupe::config
