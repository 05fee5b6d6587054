#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "config/json_tree.hpp"
#include "config/sink.hpp"
#include "troupe/config/cluster.hpp"
#include "troupe/config/load.hpp"

namespace troupe::config {

/// One model of the repository as it lies on disk.
struct repository_entry {
  std::string name;
  std::filesystem::path directory;
  /// The version directories, ascending; at least one.
  std::vector<std::uint64_t> versions;
  /// Where Triton's description of the model stands, if there is one.
  std::optional<std::filesystem::path> config_pbtxt;

  [[nodiscard]] std::filesystem::path version_directory(std::uint64_t version) const {
    return directory / std::to_string(version);
  }
};

/// Lists <repository>/<model>/<version>, by name. A directory that holds no version is reported and
/// left out.
[[nodiscard]] std::vector<repository_entry> scan_repository(const std::filesystem::path& repository,
                                                            diagnostic_sink& sink);

/// The model called `name`; reported when it is not there.
[[nodiscard]] std::optional<repository_entry>
find_in_repository(const std::filesystem::path& repository, const std::string& name,
                   diagnostic_sink& sink);

/// What the reading of one model needs besides its entry.
struct model_context {
  /// `models.<name>` of the cluster file with overrides, or null.
  const json_value* section = nullptr;
  const load_options& options;
  /// Everything but the models.
  const cluster_config& cluster;
};

/// Merges model.json of one version with the cluster file's section, checks every argument against
/// the three tables and completes the rest from the model's own files. `own_keys` are the
/// backend's, which alone knows what they mean.
[[nodiscard]] model_config read_model(const repository_entry& entry, std::uint64_t version,
                                      const model_context& context,
                                      const std::vector<std::string>& own_keys,
                                      diagnostic_sink& sink);

/// Reads generation_config.json and override_generation_config into `model.generation`.
/// `overrides` may be null; `config` is the parsed config.json or null.
void read_generation(const json_value* overrides, const json_value* config, model_config& model,
                     diagnostic_sink& sink);

/// Checks that hold between arguments, after all have been read.
void check_arguments(model_config& model, const build_capabilities& can, diagnostic_sink& sink);

} // namespace troupe::config
