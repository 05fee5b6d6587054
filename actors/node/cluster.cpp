#include "troupe/actors/cluster.hpp"

#include "actors/edge/grpc/grpc_actor.hpp"
#include "actors/membership/member.hpp"
#include "actors/node/controller.hpp"
#include "actors/node/edges.hpp"
#include "actors/node/node.hpp"
#include "actors/node/placement.hpp"
#include "actors/router/router.hpp"
#include "troupe/config/agreement.hpp"
#include "troupe/transport/caf.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <random>
#include <thread>

namespace troupe::actors {

struct cluster::impl {
  caf::actor_system& system;
  node_core node;
  std::shared_ptr<front_desk> desk;
  std::shared_ptr<class metrics> metrics;
  config::cluster_config config;
  edge_ports ports;
  std::string node_name;
  std::shared_ptr<node_fate> fate = std::make_shared<node_fate>();
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
    return fail(errc::invalid_argument, "the file names several nodes (" + known +
                                            "); a process is one of them: choose it with --node");
  return fail(errc::not_found,
              "there is no node '" + name + "' in the cluster file; it names: " + known);
}

/// What kill() and the debug route may end.
constexpr std::array<std::string_view, 11> kinds{"node", "router",     "scheduler", "worker",
                                                 "rank", "kv_manager", "replica",   "backend",
                                                 "edge", "grpc",       "metrics"};

/// Where the edge finds the node that is spawned after it.
struct late_node {
  std::mutex mutex;
  node_core node;
  member_actor member;
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

/// An order for any node of the cluster; the answer says only that it is on its way.
std::function<result<void>(std::string_view, std::chrono::milliseconds, bool)>
drain_through(std::shared_ptr<late_node> late, std::shared_ptr<front_desk> desk) {
  return [late, desk](std::string_view name, std::chrono::milliseconds deadline,
                      bool stay) -> result<void> {
    const drain_order order{std::string{name}, deadline, stay};
    const auto view = desk->view();
    std::string names;
    for (const auto& node : view->status.nodes) {
      names += (names.empty() ? "" : ", ") + node.name;
      if (node.name != order.node)
        continue;
      const bool here = &node == &view->status.nodes.front();
      const bool ended = !here && node.state == "drained" && node.lanes.empty();
      if (ended || (node.state != "up" && node.state != "draining" && node.state != "drained"))
        return fail(errc::peer_down, fmt::format("node '{}' is {}{}", node.name, node.state,
                                                 ended ? " and has ended" : ""));
      const std::lock_guard lock{late->mutex};
      if (here)
        post(late->node, drain_atom::value, order);
      else
        post(late->member, drain_atom::value, order);
      return {};
    }
    return fail(errc::not_found,
                fmt::format("there is no node '{}'; the nodes are: {}", order.node, names));
  };
}

net::address address_of(const config::node_config& node) {
  const auto& at = *node.address;
  return at ? net::address{at->host, at->port} : net::address{};
}

/// Not 0, which means a process that is alone.
std::uint64_t draw_incarnation() {
  std::random_device chance;
  return (std::uint64_t{chance()} << 32 | chance()) | 1U;
}

/// Puts the node on the wire: others can reach it from now on.
result<member_actor> go_online(net::wire& wire, caf::actor_system& system,
                               const config::cluster_config& config, const node_options& node) {
  member_options how{.who = {.self = {*node.self.name, address_of(node.self)},
                             .incarnation = node.ids.incarnation(),
                             .nodes = {}},
                     .wire = &wire};
  for (const auto& other : config.nodes)
    how.who.nodes.push_back({*other.name, address_of(other)});
  auto member = spawn_member(system, std::move(how));
  if (const auto at = wire.listen(address_of(node.self)); !at) {
    caf::anon_send_exit(member, caf::exit_reason::user_shutdown);
    auto why = from_caf(at.error());
    why.note = fmt::format("node '{}' at {}: {}", *node.self.name, to_string(**node.self.address),
                           why.note);
    return fail(std::move(why));
  }
  return member;
}

void start_first_router(caf::actor_system& system, const config::cluster_config& config,
                        node_options& node) {
  node.hub = node.ids.next_hub();
  node.router = spawn_router(system, {.hub = node.hub,
                                      .policy = routing_of(config),
                                      .max_streams = *config.limits.max_queued_requests,
                                      .resume_limit = *config.limits.resume_limit,
                                      .hash_key = block_hash_key(config),
                                      .desk = node.desk,
                                      .metrics = node.metrics});
  if (node.wire != nullptr)
    node.wire->publish(router_name, node.router);
  auto view = std::make_shared<front_view>();
  view->router = caf::actor_cast<router_actor>(node.router);
  node.desk->publish(std::move(view));
}

/// Starts whoever loads and unloads models, where somebody may.
void start_control(caf::actor_system& system, const control_options& control,
                   cluster::impl& parts) {
  if (control.mode == control_mode::none || !control.how)
    return;
  auto controller = spawn_controller(system, {.file = parts.config.file,
                                              .repository = *parts.config.model_repository,
                                              .control = control,
                                              .node = parts.node,
                                              .desk = parts.desk});
  if (control.mode != control_mode::by_request)
    return;
  auto port = std::make_shared<model_control>();
  port->order = [controller](model_order_ptr order) {
    post(controller, load_atom::value, std::move(order));
  };
  parts.desk->set_control(std::move(port));
}

} // namespace

result<void> add_wire(caf::actor_system_config& system, const config::cluster_config& config,
                      const std::string& name) {
  const auto self = choose_node(config, name);
  if (!self)
    return fail(self.error());
  const auto& at = *self->address;
  if (!at)
    return {};
  system.load<net::wire>();
  auto& content = system.content;
  caf::put(content, "wire.name", *self->name);
  if (const auto& secret = *config.secret_file)
    caf::put(content, "wire.secret-file", secret->string());
  caf::put(content, "wire.heartbeat-ms", std::int64_t{config.wire.heartbeat->count()});
  caf::put(content, "wire.dead-after-ms", std::int64_t{config.wire.dead_after->count()});
  caf::put(content, "wire.transports", *config.wire.transports);
  // UCX would spread a connection over all devices, and from loopback only loopback is reached.
  const bool here = config.wire.devices->empty() && net::is_loopback({at->host, at->port});
  caf::put(content, "wire.devices", here ? std::string{"lo"} : *config.wire.devices);
  std::vector<net::config_part> parts;
  for (const auto& part : config::agreement_of(config))
    parts.push_back({part.name, part.hash});
  net::wire::agree_on(system, parts);
  return {};
}

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
      .node_name = *self->name,
  });
  node_options node{.cluster = config,
                    .self = *self,
                    .start = options,
                    .desk = parts->desk,
                    .metrics = parts->metrics};
  node.fate = parts->fate;
  if (*self->address) {
    if (!system.has_network_manager())
      return fail(errc::invalid_argument, "node '" + *self->name +
                                              "' has an address; call add_wire() before the actor "
                                              "system is made, or remove the address");
    node.wire = &net::wire::of(system);
    node.ids = id_source{draw_incarnation()};
    auto member = go_online(*node.wire, system, config, node);
    if (!member)
      return fail(member.error());
    node.member = std::move(*member);
  }
  const auto late = std::make_shared<late_node>();
  late->member = node.member;
  if (options.edges) {
    edge_hooks hooks{.kill_actor = {}, .drain_node = drain_through(late, parts->desk)};
    if (options.fault_injection)
      hooks.kill_actor = kill_through(late);
    const auto ports = open_edges(system, std::move(hooks), node);
    if (!ports) {
      close_edges(node);
      if (node.member)
        caf::anon_send_exit(node.member, caf::exit_reason::user_shutdown);
      return fail(ports.error());
    }
    parts->ports = *ports;
  }
  if (*self->router)
    start_first_router(system, config, node);
  parts->node = system.spawn(run_node, std::move(node));
  {
    const std::lock_guard lock{late->mutex};
    late->node = parts->node;
  }
  start_control(system, options.control, *parts);
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

bool cluster::alive() const { return !impl_->fate->gone; }

bool cluster::drained() const { return impl_->fate->may_end; }

error cluster::why_ended() const {
  const std::lock_guard lock{impl_->fate->mutex};
  if (impl_->fate->why.code != errc::none)
    return impl_->fate->why;
  return {errc::peer_down, "the node actor died, and every stream with it; start again"};
}

std::uint16_t cluster::http_port() const { return impl_->ports.http; }

std::uint16_t cluster::grpc_port() const { return impl_->ports.grpc; }

std::uint16_t cluster::metrics_port() const { return impl_->ports.metrics; }

bool serves_grpc() noexcept { return has_grpc_edge(); }

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
    if (view->complete && ready == view->models.size())
      return {};
    std::this_thread::sleep_for(poll);
  }
  if (!alive())
    return fail(why_ended());
  return fail(errc::timed_out, "the models are still loading");
}

std::vector<std::string> cluster::cast() const {
  const auto& config = impl_->config;
  std::vector<std::string> lines;
  lines.push_back("node        one: supervises the others");
  const auto* self = config::find_node(config, impl_->node_name);
  if (self->address.value)
    lines.push_back("member      one: on the wire at " + to_string(**self->address));
  if (*self->router)
    lines.push_back("router      one: policy " + std::string{to_string(routing_of(config))});
  if (impl_->ports.http != 0)
    lines.push_back("edge        HTTP on port " + std::to_string(impl_->ports.http));
  if (impl_->ports.grpc != 0)
    lines.push_back("grpc        gRPC on port " + std::to_string(impl_->ports.grpc));
  if (impl_->ports.metrics != 0)
    lines.push_back("metrics     HTTP on port " + std::to_string(impl_->ports.metrics));
  const auto view = impl_->desk->view();
  for (const auto& model : view->models) {
    const auto& d = model.description;
    const auto name = model.triton && model.triton->versions.size() > 1
                          ? fmt::format("{} version {}", model.name, model.version)
                          : model.name;
    if (model.triton && !model.triton->library.empty() && model.triton->base.empty()) {
      lines.push_back("backend     " + name + ": " + model.triton->library.string());
      continue;
    }
    if (*self->router)
      lines.push_back("backend     " + name + ": " + d.architecture);
    lines.push_back(fmt::format("scheduler   {}: {} sequences, {} tokens a step{}", name,
                                d.max_num_seqs, d.max_num_batched_tokens,
                                d.batched_tokens_measured ? " (measured)" : ""));
    lines.push_back(
        fmt::format("kv_manager  {}: {} blocks of {} tokens, {} in {:.1f} MiB", name, d.num_blocks,
                    d.block_size, d.kv_cache_dtype,
                    static_cast<double>(d.num_blocks * d.kv_bytes_per_block) / (1 << 20)));
    lines.push_back(fmt::format("worker      {}: {} ({}), {}, {:.1f} MiB of weights", name, d.kind,
                                d.device, d.dtype,
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
