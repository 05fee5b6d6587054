#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "troupe/base/error.hpp"
#include "troupe/config/cluster.hpp"
#include "troupe/config/diagnostics.hpp"

namespace troupe::config {

/// What the running binary can do; what the file asks beyond it is refused by name.
struct build_capabilities {
  /// Whether a device may be a GPU. A machine without one, or without libtroupe_cuda.so, is found
  /// out when the model is loaded.
  bool cuda = true;
  bool grpc = false;
  bool prefix_routing = false;
  std::uint32_t max_tensor_parallel_size = 1;
};

struct load_options {
  /// Each "path=value" as after `--set`; later ones win. A value is JSON, or else plain text.
  /// A segment that holds dots is quoted: `models."qwen2.5".seed=1`.
  std::vector<std::string> set;
  /// Only names that begin with TROUPE_ are read; see `process_environment`.
  std::map<std::string, std::string> environment;
  build_capabilities capabilities;
  /// A secret_file that does not exist is no mistake: whoever loads makes it.
  bool will_make_secret = false;
  /// 0 asks the machine.
  std::uint32_t hardware_threads = 0;
};

/// All findings, and the configuration when none of them is an error.
struct load_result {
  std::optional<cluster_config> config;
  std::vector<diagnostic> diagnostics;
};

/// The TROUPE_* variables of this process: the one place where the environment is read.
/// TROUPE_HTTP_PORT, TROUPE_HTTP_HOST, TROUPE_LOG_LEVEL, TROUPE_MODEL_REPOSITORY,
/// TROUPE_CPU_THREADS, and TROUPE_SET__path__to__key for every other field.
[[nodiscard]] std::map<std::string, std::string> process_environment();

/// Reads the cluster file and every model.json that it leads to, completes and validates them, and
/// reports every mistake that it finds, not only the first (at most 100).
/// @cost reads files of at most 1 MiB each; opens no weights and no sockets
[[nodiscard]] load_result check_cluster(const std::filesystem::path& file,
                                        const load_options& options);

/// The same for those who only go on or stop: the note holds all errors, one line each.
/// @errors the code of the first finding: invalid_argument, not_found, unsupported, conflict,
///         corrupt_data, io_failure, limit_exceeded, unauthorized (a secret that others may read)
[[nodiscard]] result<cluster_config> load_cluster(const std::filesystem::path& file,
                                                  const load_options& options);

} // namespace troupe::config
