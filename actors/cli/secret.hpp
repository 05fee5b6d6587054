#pragma once

#include "troupe/base/error.hpp"

#include <filesystem>

namespace troupe::cli {

/// Makes a new secret of 256 random bits, in a file that only its owner can read.
/// @errors conflict: the file exists, and is left as it is; io_failure
[[nodiscard]] result<void> make_secret(const std::filesystem::path& file);

} // namespace troupe::cli
