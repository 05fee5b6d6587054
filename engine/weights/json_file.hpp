#pragma once

#include "troupe/base/error.hpp"

#include <cstddef>
#include <filesystem>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace troupe::engine {

/// Bounds of a JSON file of a checkpoint.
struct json_limits {
  std::size_t bytes = 64U << 20U;
  int depth = 32;
};

/// Parses `text` as one JSON object. `name` is put before the notes of errors.
/// @errors corrupt_data: it is no JSON object, too long or nested too deep
[[nodiscard]] result<nlohmann::json> parse_json_object(std::string_view text, std::string_view name,
                                                       json_limits limits = {});

/// Reads and parses a file that holds one JSON object.
/// @errors not_found, io_failure, corrupt_data
[[nodiscard]] result<nlohmann::json> read_json_object(const std::filesystem::path& path,
                                                      json_limits limits = {});

} // namespace troupe::engine
