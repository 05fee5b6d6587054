#pragma once

#include <optional>
#include <vector>

#include "config/model_reader.hpp"
#include "config/sink.hpp"
#include "troupe/config/load.hpp"

namespace troupe::config {

/// What is read of one model of the repository.
struct read_model_result {
  triton_model description;
  /// One for each chosen version; empty for a backend of people's own.
  std::vector<model_config> engines;
  std::uint64_t fingerprint = 0;
  /// Keys of model.json that the backend declared as its own.
  std::vector<std::string> own_keys;
};

/// Reads config.pbtxt (or `config_json` in its place) and each chosen version's model.json.
/// Empty after an error, which stands in `sink`.
[[nodiscard]] std::optional<read_model_result> read_whole_model(const repository_entry& entry,
                                                                const model_context& context,
                                                                const std::string* config_json,
                                                                diagnostic_sink& sink);

} // namespace troupe::config
