#include "troupe/actors/cluster.hpp"

#include "actors/edge/edge_actor.hpp"
#include "actors/node/node.hpp"
#include "actors/node/placement.hpp"
#include "actors/router/router.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <thread>

namespace troupe::actors {

struct cluster::impl {
  caf::actor_system& system;
  node_core node;
  std::shared_ptr<front_desk> desk;
  std::shared_ptr<class metrics> metrics;
  config::cluster_config config;
  std::uint16_t port = 0;
  std::shared_ptr<std::atomic<bool>> gone = std::make_shared<std::atomic<bool>>(false);
  bool stopped = false;
};

namespace {

constexpr std::chrono::milliseconds poll{5};

result<config::node_config> choose_node(const config::cluster_config& cluster,
                                        const std::string& name) {
  if (name.empty() && cluster.nodes.size() == 1)
    return cluster.nodes.front();
  if (const auto* found = config::find_node(cluster, name))
    return *found;
  std::string known;
  for (const auto& node : cluster.nodes)
    known += (known.empty() ? "" : ", ") + *node.name;
  if (name.empty())
    return fail(errc::unsupported, "the file names several nodes (" + known +
                                       "); this build runs one process: choose one with --node");
  return fail(errc::not_found, "no node '" + name + "' in the cluster file; it names: " + known);
}

http_options http_of(const config::cluster_config& cluster, const config::http_edge& edge) {
  http_options made;
  made.host = *edge.host;
  made.port = *edge.port;
  made.max_body_bytes = *edge.max_body_bytes;
  made.max_header_bytes = *edge.max_header_bytes;
  made.max_connections = *edge.max_connections;
  made.header_timeout = *edge.header_timeout;
  made.idle_timeout = *edge.idle_timeout;
  made.api_keys_file = *edge.api_keys_file;
  made.slow_reader_timeout = *cluster.limits.slow_reader_timeout;
  made.max_queued_requests = *cluster.limits.max_queued_requests;
  return made;
}

/// What kill() and the debug route may end.
constexpr std::array<std::string_view, 8> kinds{"node",       "router",  "scheduler", "worker",
                                                "kv_manager", "replica", "backend",   "edge"};

/// Where the edge finds the node that is spawned after it.
struct late_node {
  std::mutex mutex;
  node_core node;
};

std::function<result<void>(std::string_view)> kill_through(std::shared_ptr<late_node> late) {
  return [late](std::string_view kind) -> result<void> {
    if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end())
      return fail(errc::invalid_argument,
                  fmt::format("there is no kind of actor '{}'; the kinds are: {}", kind,
                              fmt::join(kinds, ", ")));
    const std::lock_guard lock{late->mutex};
    post(late->node, kill_atom::value, std::string{kind});
    return {};
  };
}

} // namespace

result<cluster> start_cluster(caf::actor_system& system, const config::cluster_config& config,
                              start_options options) {
  auto self = choose_node(config, options.node);
  if (!self)
    return fail(self.error());
  auto parts = std::make_unique<cluster::impl>(cluster::impl{
      .system = system,
      .desk = std::make_shared<front_desk>(),
      .metrics = std::make_shared<metrics>(),
      .config = config,
  });
  node_options node{.cluster = config,
                    .self = *self,
                    .start = options,
                    .desk = parts->desk,
                    .metrics = parts->metrics};
  node.gone = parts->gone;
  const auto late = std::make_shared<late_node>();
  if (options.edges && self->http) {
    auto http = http_of(config, *self->http);
    if (options.fault_injection)
      http.kill_actor = kill_through(late);
    auto opened = spawn_edge(system, http, parts->desk, parts->metrics);
    if (!opened)
      return fail(opened.error());
    parts->port = http.port = opened->port;
    node.edge = opened->handle;
    node.make_edge = [&system, http, desk = parts->desk,
                      numbers = parts->metrics]() -> result<caf::actor> {
      return spawn_edge(system, http, desk, numbers).map([](spawned_edge e) { return e.handle; });
    };
  }
  node.router = spawn_router(system, {.hub = hub_id{1},
                                      .policy = routing_of(config),
                                      .max_streams = *config.limits.max_queued_requests,
                                      .hash_key = block_hash_key(config),
                                      .desk = parts->desk,
                                      .metrics = parts->metrics});
  auto view = std::make_shared<front_view>();
  view->router = caf::actor_cast<router_actor>(node.router);
  parts->desk->publish(std::move(view));
  parts->node = system.spawn(run_node, std::move(node));
  {
    const std::lock_guard lock{late->mutex};
    late->node = parts->node;
  }
  return cluster{std::move(parts)};
}

cluster::cluster(std::unique_ptr<impl> parts) : impl_{std::move(parts)} {}
cluster::cluster(cluster&&) noexcept = default;
cluster& cluster::operator=(cluster&&) noexcept = default;

cluster::~cluster() {
  if (impl_)
    stop(std::chrono::milliseconds{0});
}

router_actor cluster::router() const { return impl_->desk->view()->router; }

bool cluster::alive() const { return !*impl_->gone; }

std::uint16_t cluster::http_port() const { return impl_->port; }

void cluster::kill(const std::string& kind) { post(impl_->node, kill_atom::value, kind); }

result<void> cluster::await_ready(std::chrono::milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (std::chrono::steady_clock::now() < end && alive()) {
    const auto view = impl_->desk->view();
    std::size_t ready = 0;
    for (const auto& model : view->models) {
      if (model.state == "failed")
        return fail(errc::internal, "model '" + model.name + "' did not load: " + model.note);
      ready += model.state == "ready" ? 1 : 0;
    }
    if (!view->models.empty() && ready == view->models.size())
      return {};
    std::this_thread::sleep_for(poll);
  }
  if (!alive())
    return fail(errc::peer_down, "the node has ended");
  return fail(errc::timed_out, "the models are still loading");
}

std::vector<std::string> cluster::cast() const {
  const auto& config = impl_->config;
  std::vector<std::string> lines;
  lines.push_back("node        one: supervises the others");
  lines.push_back("router      one: policy " + std::string{to_string(routing_of(config))});
  if (impl_->port != 0)
    lines.push_back("edge        HTTP on port " + std::to_string(impl_->port));
  for (const auto& model : impl_->desk->view()->models) {
    const auto& d = model.description;
    lines.push_back("backend     " + model.name + ": " + d.architecture);
    lines.push_back(fmt::format("scheduler   {}: {} sequences, {} tokens a step{}", model.name,
                                d.max_num_seqs, d.max_num_batched_tokens,
                                d.batched_tokens_measured ? " (measured)" : ""));
    lines.push_back(
        fmt::format("kv_manager  {}: {} blocks of {} tokens, {} in {:.1f} MiB", model.name,
                    d.num_blocks, d.block_size, d.kv_cache_dtype,
                    static_cast<double>(d.num_blocks * d.kv_bytes_per_block) / (1 << 20)));
    lines.push_back(fmt::format("worker      {}: {} ({}), {}, {:.1f} MiB of weights", model.name,
                                d.kind, d.device, d.dtype,
                                static_cast<double>(d.weight_bytes) / (1 << 20)));
  }
  return lines;
}

void cluster::stop(std::chrono::milliseconds deadline) {
  if (std::exchange(impl_->stopped, true))
    return;
  caf::scoped_actor self{impl_->system};
  const auto end = std::chrono::steady_clock::now() + deadline;
  const auto ask_node = [&](auto what) {
    std::uint64_t streams = 0;
    self->request(impl_->node, std::chrono::seconds{10}, what)
        .receive([&](std::uint64_t left) { streams = left; }, [](const caf::error&) {});
    return streams;
  };
  const auto busy = [&] {
    return ask_node(drain_atom::value) > 0 || impl_->desk->answers_open() > 0;
  };
  while (alive() && busy() && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(poll);
  ask_node(cancel_atom::value);
  self->send_exit(impl_->node, caf::exit_reason::user_shutdown);
  self->wait_for(impl_->node);
}

} // namespace troupe::actors
