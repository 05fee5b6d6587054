#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "troupe/base/error.hpp"
#include "troupe/config/backend_needs.hpp"
#include "troupe/config/cluster.hpp"
#include "troupe/config/diagnostics.hpp"

namespace troupe::config {

/// What the running binary can do; what the file asks beyond it is refused by name.
struct build_capabilities {
  /// Whether a device may be a GPU. A machine without one, or without libtroupe_cuda.so, is found
  /// out when the model is loaded.
  bool cuda = true;
  bool grpc = false;
  std::uint32_t max_tensor_parallel_size = 8;
  /// Names of backends beside "troupe" and "vllm" that can be found; a model of another is refused.
  std::vector<std::string> backends{};
  /// Opens the library of a backend that is in neither list, and asks it what the model needs.
  std::function<result<backend_needs>(const backend_question&)> ask_backend{};
  /// The architectures of config.json that the engine has recipes for; empty: the engine says at
  /// load.
  std::vector<std::string> architectures{};
};

struct load_options {
  /// Each "path=value" as after `--set`; later ones win. A value is JSON, or else plain text.
  /// A segment that holds dots is quoted: `models."qwen2.5".seed=1`.
  std::vector<std::string> set{};
  /// TROUPE_* and where Hugging Face's cache is; see `process_environment`.
  std::map<std::string, std::string> environment{};
  build_capabilities capabilities{};
  /// A secret_file that does not exist is no mistake: whoever loads makes it.
  bool will_make_secret = false;
  /// 0 asks the machine.
  std::uint32_t hardware_threads = 0;
  /// Unset asks the machine; what KIND_GPU without a list means.
  std::optional<std::uint32_t> gpus{};
  /// Reads only the models that the explicit mode of model control starts with, none perhaps.
  bool as_started = false;
};

/// All findings, and the configuration when none of them is an error.
struct load_result {
  std::optional<cluster_config> config;
  std::vector<diagnostic> diagnostics;
};

/// The variables of this process that count: the one place where the environment is read.
/// TROUPE_HTTP_PORT, TROUPE_HTTP_HOST, TROUPE_LOG_LEVEL, TROUPE_MODEL_REPOSITORY,
/// TROUPE_CPU_THREADS, and TROUPE_SET__path__to__key for every other field; HF_HUB_CACHE, HF_HOME,
/// XDG_CACHE_HOME and HOME say where models of Hugging Face lie.
[[nodiscard]] std::map<std::string, std::string> process_environment();

/// Reads the cluster file and every config.pbtxt and model.json that it leads to, completes and
/// validates them, and reports every mistake that it finds, not only the first (at most 100).
/// A directory in place of the file is a model repository: one node here, all else by default.
/// @cost reads files of at most 1 MiB each; opens no weights and no sockets
[[nodiscard]] load_result check_cluster(const std::filesystem::path& file,
                                        const load_options& options);

/// The same for those who only go on or stop: the note holds all errors, one line each.
/// @errors the code of the first finding: invalid_argument, not_found, unsupported, conflict,
///         corrupt_data, io_failure, limit_exceeded, unauthorized (a secret that others may read)
[[nodiscard]] result<cluster_config> load_cluster(const std::filesystem::path& file,
                                                  const load_options& options);

/// What a load request of the repository protocol brings along.
struct model_overrides {
  /// JSON of the whole configuration; takes the place of config.pbtxt.
  std::optional<std::string> config;
  /// "<version>/<path>" to content: they take the place of all versions on disk. They want
  /// `config`.
  std::map<std::string, std::string> files;
};

/// One model, read again: what repository control loads, and the poll mode compares.
struct loaded_model {
  triton_model description;
  /// The engine's side of each of `description.versions`, in their order; empty for a backend of
  /// people's own.
  std::vector<model_config> engines;
  /// Findings that are no errors.
  std::vector<diagnostic> warnings;
  /// As fingerprint_model, of what was read.
  std::uint64_t fingerprint = 0;
  /// Files that came with the load request stay on disk as long as this lives.
  std::shared_ptr<const void> files;
};

/// Reads one model of a repository, again or for the first time. `file` is the cluster file, whose
/// section of the model counts, or a repository's directory; cluster_config::file serves.
/// @errors not_found: there is no such model; busy: its files changed while they were read, so that
///         the same call may succeed; else as load_cluster
[[nodiscard]] result<loaded_model> load_model(const std::filesystem::path& file,
                                              std::string_view name, const load_options& options,
                                              const model_overrides& overrides = {});

} // namespace troupe::config
