#pragma once

#include "troupe/actors/messages.hpp"
#include "troupe/base/error.hpp"
#include "troupe/config/cluster.hpp"

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::config {
struct cluster_config;
struct load_options;
} // namespace troupe::config

namespace troupe::actors {

using config::control_mode;

struct control_options {
  control_mode mode = control_mode::none;
  std::chrono::milliseconds poll_interval{std::chrono::seconds{15}};
  /// How models are read; wanted by all modes but `none`.
  std::shared_ptr<const config::load_options> how;
};

/// How a cluster is started inside an actor system.
struct start_options {
  /// The node of the file to be; empty takes the one node that the file has.
  std::string node;
  /// Serve the HTTP edges that the file names. An embedder may want the actors alone.
  bool edges = true;
  /// The kind of executor that workers make, e.g. "simulated" for tests without weights; empty
  /// takes the devices of the node in turns.
  std::string executor;
  /// Lets the HTTP edge kill actors by name; for tests alone.
  bool fault_injection = false;
  /// Who loads and unloads models while it runs; for a cluster of one node without an address.
  control_options control;
  /// Told what is being loaded, and how far: model, share 0 to 1, words. Called from loading
  /// threads.
  std::function<void(std::string_view model, double share, std::string_view what)> progress;
};

/// A running node of a cluster inside one's actor system. Destroy it, or call stop(), before the
/// actor system ends.
class cluster {
public:
  cluster(cluster&&) noexcept;
  cluster& operator=(cluster&&) noexcept;
  ~cluster();

  /// The typed handle of the router in this process, null in one that is no front. Should the
  /// router die, its streams end with it and this becomes the handle of the next one: an actor that
  /// waits for tokens monitors it.
  [[nodiscard]] router_actor router() const;
  /// Waits until every model is ready, or one has failed for good.
  /// @errors what the failed model says; timed_out
  [[nodiscard]] result<void> await_ready(std::chrono::milliseconds limit);
  /// False once the node has ended, by stop() or by its death, which nothing in this process mends:
  /// every stream has ended then, and one ends the process or starts the cluster anew.
  [[nodiscard]] bool alive() const;
  /// Why it ended by itself: other nodes have declared it dead, or it just died.
  [[nodiscard]] error why_ended() const;
  /// True once an order has emptied the node and wants the process to end: call stop().
  [[nodiscard]] bool drained() const;
  /// The port that the HTTP edge listens on, 0 without one.
  [[nodiscard]] std::uint16_t http_port() const;
  /// The same of the gRPC edge.
  [[nodiscard]] std::uint16_t grpc_port() const;
  /// The same of the edge that serves /metrics alone.
  [[nodiscard]] std::uint16_t metrics_port() const;
  /// One line per actor and model, as `troupe up` prints it.
  [[nodiscard]] std::vector<std::string> cast() const;
  /// Fault injection for tests: ends one actor by kind ("node", "router", "scheduler", "worker",
  /// "kv_manager", "replica", "backend", "edge", "grpc", "metrics") as if it had died.
  void kill(const std::string& kind);
  /// Takes no new requests, lets those in flight end until the deadline, then ends them; stops all
  /// actors.
  void stop(std::chrono::milliseconds deadline);

  struct impl;
  explicit cluster(std::unique_ptr<impl> parts);

private:
  std::unique_ptr<impl> impl_;
};

/// Prepares the configuration of an actor system for the node `node` of `config` (empty: its only
/// one): when the node has an address, the system will load troupe::net::wire with the cluster's
/// secret and settings. Call it before the system is made.
/// @errors not_found: no such node
[[nodiscard]] result<void> add_wire(caf::actor_system_config& system,
                                    const config::cluster_config& config, const std::string& node);

/// Starts the node of `config` in `system`: spawns the cast and returns at once; models load behind
/// it. The configuration of the system must have had add_messages(), and add_wire() when the node
/// has an address; the other nodes of the file are then dialled until they answer.
/// @errors io_failure: a port in use (named); not_found: no such node; unauthorized: the secret's
/// file; whatever config says
[[nodiscard]] result<cluster> start_cluster(caf::actor_system& system,
                                            const config::cluster_config& config,
                                            start_options options = {});

/// Whether this build has a gRPC edge: config::build_capabilities::grpc of whoever loads the file.
[[nodiscard]] bool serves_grpc() noexcept;

} // namespace troupe::actors
