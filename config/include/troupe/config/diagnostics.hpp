#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "troupe/base/error.hpp"

namespace troupe::config {

enum class severity : std::uint8_t {
  /// The value is accepted, but has not the effect that one may expect.
  warning,
  /// Nothing is started before this is mended.
  error,
};

/// One finding about what people wrote.
struct diagnostic {
  config::severity severity = severity::error;
  errc code = errc::invalid_argument;
  /// The file, "command line" or "environment TROUPE_X".
  std::string file;
  /// From 1; 0 where there is no line (a missing file, the command line).
  std::uint32_t line = 0;
  /// The field as in `--set`, e.g. "nodes.0.edges.http"; empty for the file as a whole.
  std::string path;
  /// What is wrong and the mend, one sentence or two.
  std::string message;
  /// From 1; 0 where it is not known.
  std::uint32_t column = 0;

  friend bool operator==(const diagnostic&, const diagnostic&) = default;
};

/// "cluster.json:7: error: nodes.0.name: ...", with the column after the line where it is known.
[[nodiscard]] std::string to_string(const diagnostic& d);

[[nodiscard]] bool has_errors(const std::vector<diagnostic>& all) noexcept;

/// All errors as one: the code of the first, one line each in the note. @pre has_errors(all)
[[nodiscard]] error to_error(const std::vector<diagnostic>& all);

} // namespace troupe::config
