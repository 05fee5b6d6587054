#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "troupe/base/error.hpp"
#include "troupe/config/load.hpp"

namespace troupe::config {

/// Files of a load request, as a repository of their own.
struct override_repository {
  std::filesystem::path repository;
  /// Removes the directory when the last copy is gone.
  std::shared_ptr<const void> keeper;
};

/// Writes the files below a new directory, as <directory>/<model>/<version>/<path>.
/// @errors invalid_argument: `config` is missing, or a path is not <version>/<path> or leads out;
///         limit_exceeded; io_failure
[[nodiscard]] result<override_repository> write_override_files(const std::string& model,
                                                               const model_overrides& overrides);

} // namespace troupe::config
