#pragma once

#include <optional>
#include <string>
#include <vector>

#include "config/model_reader.hpp"
#include "config/triton_draft.hpp"
#include "troupe/config/triton.hpp"

namespace troupe::config {

/// config.pbtxt of an entry, or the JSON in its place, as a draft with name and backend; a draft of
/// defaults when there is none. Empty when it cannot be read or names no backend.
[[nodiscard]] std::optional<triton_draft>
read_draft(const repository_entry& entry, const std::string* config_json, diagnostic_sink& sink);

/// Those of `on_disk` that the version policy chooses, ascending. @pre on_disk is ascending
[[nodiscard]] std::vector<std::uint64_t> choose_versions(const triton_draft& draft,
                                                         const std::vector<std::uint64_t>& on_disk,
                                                         diagnostic_sink& sink);

/// The value of a completed draft.
[[nodiscard]] triton_model make_triton_model(const triton_draft& draft,
                                             const repository_entry& entry,
                                             std::vector<std::uint64_t> versions);

/// The completed configuration as lines, each with who said it.
[[nodiscard]] std::vector<config_line> lines_of(const triton_draft& draft);

/// How the instance groups fit to the engine: replicas and devices of each of `engines`, the limit
/// of its queue. What two files say must agree.
void apply_to_engine(const triton_draft& draft, const cluster_config& cluster,
                     const load_options& options, model_config& engine, diagnostic_sink& sink);

} // namespace troupe::config
