#pragma once

#include <string>
#include <vector>

#include "troupe/config/cluster.hpp"
#include "troupe/config/diagnostics.hpp"

namespace troupe::config {

/// One line of what `troupe check` prints.
struct explained_value {
  /// The field as in `--set`.
  std::string path;
  /// As JSON would write it; "(measured at load)" and the like where there is none yet.
  std::string value;
  /// As to_string(origin).
  std::string from;
};

/// A model's completed config.pbtxt.
struct explained_config {
  std::string model;
  /// The file, or "no config.pbtxt".
  std::string file;
  std::vector<config_line> lines;
};

struct explanation {
  std::vector<explained_value> values;
  /// Arguments that are accepted and change nothing; `from` ends in the reason.
  std::vector<explained_value> without_effect;
  std::vector<explained_config> configs;
};

/// Every value of the configuration with where it came from, in a fixed order.
[[nodiscard]] explanation explain(const cluster_config& cluster);

/// A table in three columns, the models' configurations as differences to what was written, what
/// has no effect, and the findings.
[[nodiscard]] std::string render(const explanation& e, const std::vector<diagnostic>& findings);

} // namespace troupe::config
