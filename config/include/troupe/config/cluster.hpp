#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "troupe/base/log.hpp"
#include "troupe/config/device.hpp"
#include "troupe/config/model.hpp"
#include "troupe/config/origin.hpp"

namespace troupe::config {

/// Where a node's transport listens. IPv6 hosts are kept without brackets.
struct address {
  std::string host;
  std::uint16_t port = 0;
  friend bool operator==(const address&, const address&) = default;
};

[[nodiscard]] std::string to_string(const address& a);

/// The OpenAI edge; also serves /health, /ready and /metrics.
struct http_edge {
  setting<std::string> host{"127.0.0.1", {}};
  /// 0 lets the system choose; the chosen one is printed.
  setting<std::uint16_t> port{8000, {}};
  /// A larger body is answered with 413.
  setting<std::uint64_t> max_body_bytes{4U << 20U, {}};
  setting<std::uint32_t> max_header_bytes{16U << 10U, {}};
  /// Further connections are closed with 503.
  setting<std::uint32_t> max_connections{1024, {}};
  /// The time for a whole request, header and body, to arrive.
  setting<std::chrono::milliseconds> header_timeout{std::chrono::seconds{10}, {}};
  /// The time that a connection may stay open between requests.
  setting<std::chrono::milliseconds> idle_timeout{std::chrono::seconds{75}, {}};
  /// Lines "sha256:<hex>  label"; empty: no key is asked for. The edge parses it.
  setting<std::optional<std::filesystem::path>> api_keys_file;
};

/// A port of its own for /metrics.
struct metrics_edge {
  setting<std::string> host{"127.0.0.1", {}};
  setting<std::uint16_t> port{8002, {}};
};

/// KServe's protocol over gRPC.
struct grpc_edge {
  setting<std::string> host{"127.0.0.1", {}};
  /// 0 lets the system choose; the chosen one is printed.
  setting<std::uint16_t> port{8001, {}};
  /// Empty: the http edge's keys, and none without those.
  setting<std::optional<std::filesystem::path>> api_keys_file;
};

/// One process of the cluster.
struct node_config {
  setting<std::string> name;
  /// Empty in a cluster of one node.
  setting<std::optional<config::address>> address;
  setting<std::vector<device>> devices;
  /// Requests enter here.
  setting<bool> router{true, {}};
  std::optional<http_edge> http;
  std::optional<metrics_edge> metrics;
  std::optional<grpc_edge> grpc;
};

/// How a router chooses among replicas.
enum class routing_policy : std::uint8_t { prefix, least_loaded, round_robin };

/// Bounds on what the cluster holds at once and on how long it waits.
struct serving_limits {
  /// Requests that wait in one router at most, over all models, before 503.
  setting<std::uint32_t> max_queued_requests{4096, {}};
  /// A reader that takes nothing for so long is cut off.
  setting<std::chrono::milliseconds> slow_reader_timeout{std::chrono::seconds{30}, {}};
  /// A stream whose replica is gone waits so long for another one before it ends with an error.
  setting<std::chrono::milliseconds> resume_limit{std::chrono::seconds{30}, {}};
  /// After SIGTERM, running requests have so long to end.
  setting<std::chrono::milliseconds> shutdown_deadline{std::chrono::seconds{30}, {}};
};

/// How nodes talk to each other; see troupe/transport/caf.hpp. Each node may say its own.
struct wire_settings {
  /// Silence after which a node says that it lives.
  setting<std::chrono::milliseconds> heartbeat{std::chrono::milliseconds{200}, {}};
  /// Silence after which a node is declared dead; at least twice the heartbeat.
  setting<std::chrono::milliseconds> dead_after{std::chrono::seconds{1}, {}};
  /// UCX's transports and network devices; empty leaves the devices to UCX.
  setting<std::string> transports{"posix,cma,tcp", {}};
  setting<std::string> devices;
};

/// Triton's modes of model control: models stay as they were at the start; by requests of the
/// repository protocol; or as the files of the repository change.
enum class control_mode : std::uint8_t { none, by_request, poll };

/// How models are loaded and unloaded while the cluster runs: in one of one node without an
/// address.
struct control_settings {
  setting<control_mode> mode;
  /// What `by_request` loads at the start; "*" is all.
  setting<std::vector<std::string>> load_models;
  /// How often `poll` looks.
  setting<std::chrono::milliseconds> poll_interval{std::chrono::seconds{15}, {}};
};

/// Whether a cluster that is started with these settings begins with this model.
[[nodiscard]] bool starts_with(const control_settings& control, std::string_view model);

/// Everything that one cluster file says, completed. A value: nothing changes it after loading.
struct cluster_config {
  std::filesystem::path file;
  setting<std::string> cluster{"troupe", {}};
  setting<std::optional<std::filesystem::path>> secret_file;
  setting<std::filesystem::path> model_repository;
  /// Holds <name>/libtroupe_<name>.so; empty: lib/troupe/backends beside the program.
  setting<std::filesystem::path> backend_directory;
  /// Keeps what was measured for later starts; empty: nothing is kept.
  setting<std::filesystem::path> cache_directory;
  setting<troupe::log_level> log_level{troupe::log_level::info, {}};
  setting<routing_policy> routing{routing_policy::least_loaded, {}};
  serving_limits limits;
  control_settings model_control;
  wire_settings wire;
  /// Threads of CPU ranks unless a model says otherwise; the machine's by default.
  setting<std::uint32_t> cpu_threads{1, {}};
  /// At least one.
  std::vector<node_config> nodes;
  /// The engine's models by name, each the highest of its chosen versions.
  std::vector<model_config> models;
  /// The other versions that a version policy chooses, by name and version.
  std::vector<model_config> older_versions;
  /// Models of backends of people's own.
  std::vector<triton_model> custom_models;
};

/// The node called `name`, or null.
[[nodiscard]] const node_config* find_node(const cluster_config& cluster, std::string_view name);
/// The model called or served as `name`, or null.
[[nodiscard]] const model_config* find_model(const cluster_config& cluster, std::string_view name);

} // namespace troupe::config
