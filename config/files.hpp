#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "config/json_tree.hpp"
#include "config/reader.hpp"
#include "troupe/base/error.hpp"

namespace troupe::config {

/// The whole file, when it is a regular file of at most `most_bytes`.
/// @errors not_found, io_failure (not a regular file, no permission), limit_exceeded
[[nodiscard]] result<std::string> read_file(const std::filesystem::path& file,
                                            std::size_t most_bytes);

/// Reads and parses a JSON file; what is wrong goes to `sink` with `file` as its place.
[[nodiscard]] std::optional<json_value> read_json(const std::filesystem::path& file,
                                                  origin_kind kind, diagnostic_sink& sink);

/// For files that hold secrets: the path, when it is a readable file that only its owner may read.
[[nodiscard]] std::optional<std::filesystem::path> as_secret_path(const field& f);

/// The same for the cluster's secret, which is 16 bytes long at least. @param may_be_missing it
/// will be made
[[nodiscard]] std::optional<std::filesystem::path> as_cluster_secret(const field& f,
                                                                     bool may_be_missing);

} // namespace troupe::config
