#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::actors::kserve {

/// What a path below /v2 asks for.
enum class operation {
  server,
  live,
  ready,
  metadata,
  model_ready,
  config,
  stats,
  infer,
  generate,
  generate_stream,
  index,
  load,
  unload,
  memory_status,
  memory_register,
  memory_unregister,
  cuda_memory,
  logging,
  trace,
};

struct path {
  operation what = operation::server;
  /// The path as metrics and logs know it; never what a client sent.
  std::string_view label;
  /// The Allow header.
  std::string_view allow;
  /// The model or the shared memory region; empty where the path has none.
  std::string name;
  std::string version;
};

/// @param segments of the path behind "/v2", percent-decoded
[[nodiscard]] std::optional<path> find_path(const std::vector<std::string>& segments);

/// Whether its body holds tensors: it may be compressed, and have a binary part.
[[nodiscard]] bool takes_tensors(operation what) noexcept;
/// Whether its body may be as large as tensors are; a load brings files.
[[nodiscard]] bool takes_much(operation what) noexcept;
/// Whether its answer takes time.
[[nodiscard]] bool waits(operation what) noexcept;
/// Whether a probe may ask without a key.
[[nodiscard]] bool is_health(operation what) noexcept;

} // namespace troupe::actors::kserve
