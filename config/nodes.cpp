#include <fmt/core.h>

#include <algorithm>
#include <charconv>

#include "config/cluster_reader.hpp"
#include "config/files.hpp"
#include "config/reader.hpp"
#include "config/text.hpp"

namespace troupe::config {

namespace {

constexpr std::size_t most_nodes = 2048;
constexpr std::size_t most_devices = 64;

template <class T>
std::optional<T> whole_number(std::string_view text) {
  T n{};
  const auto* end = text.data() + text.size();
  const auto r = std::from_chars(text.data(), end, n);
  return r.ec == std::errc{} && r.ptr == end ? std::optional<T>{n} : std::nullopt;
}

std::optional<address> as_address(const field& f) {
  const auto text = as_string(f);
  if (!text)
    return std::nullopt;
  const auto colon = text->rfind(':');
  auto host = text->substr(0, colon == std::string::npos ? text->size() : colon);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed)
    host = host.substr(1, host.size() - 2);
  const auto port = colon == std::string::npos
                        ? std::optional<std::uint16_t>{}
                        : whole_number<std::uint16_t>(std::string_view{*text}.substr(colon + 1));
  const bool good = is_host(host) && (bracketed || host.find(':') == std::string::npos);
  if (!good || !port || *port == 0)
    return f.wrong(fmt::format("{} is not an address; write host:port, e.g. 10.0.0.1:7600 or "
                               "[fd00::1]:7600",
                               in_quotes(*text)));
  return address{host, *port};
}

std::optional<device> as_device(const field& f, const build_capabilities& can) {
  const auto text = as_string(f);
  if (!text)
    return std::nullopt;
  if (*text == "cpu")
    return device{device_kind::cpu, 0};
  const auto index = text->starts_with("cuda:")
                         ? whole_number<std::uint16_t>(std::string_view{*text}.substr(5))
                         : std::nullopt;
  if (!index)
    return f.wrong(fmt::format("must be cpu or cuda:<index>, not {}", in_quotes(*text)));
  if (!can.cuda)
    return f.wrong(fmt::format("{} needs CUDA, which this build has not; write \"cpu\"", *text),
                   errc::unsupported);
  return device{device_kind::cuda, *index};
}

std::optional<std::vector<device>> as_devices(const field& f, const build_capabilities& can) {
  if (f.value.kind != json_kind::array || f.value.items.size() > most_devices)
    return f.wrong(
        fmt::format("must be a list of at most {} devices, e.g. [\"cpu\"]", most_devices));
  std::vector<device> all;
  for (std::size_t i = 0; i < f.value.items.size(); ++i) {
    const field item{f.value.items[i], join_path(f.path, std::to_string(i)), f.sink};
    const auto d = as_device(item, can);
    if (!d)
      continue;
    if (std::find(all.begin(), all.end(), *d) != all.end())
      (void)item.wrong(fmt::format("{} is listed twice", to_string(*d)), errc::conflict);
    all.push_back(*d);
  }
  return all;
}

void read_http(const field& f, http_edge& out) {
  if (f.value.kind == json_kind::integer) {
    if (const auto port = as_integer(f, 0, 65'535))
      out.port = {static_cast<std::uint16_t>(*port), f.value.from()};
    return;
  }
  object_reader r{f.value, f.path, f.sink};
  if (!r.is_object())
    return;
  r.read("host", out.host, as_host);
  r.read("port", out.port, integer_in(0, 65'535));
  r.read("max_body_bytes", out.max_body_bytes, integer_in(1024, 1LL << 32U));
  r.read("max_header_bytes", out.max_header_bytes, integer_in(1024, 1 << 20U));
  r.read("max_connections", out.max_connections, integer_in(1, 1'000'000));
  r.read("header_timeout_s", out.header_timeout, as_seconds);
  r.read("idle_timeout_s", out.idle_timeout, as_seconds);
  r.read("api_keys_file", out.api_keys_file, as_secret_path);
  r.refuse_unknown();
}

void read_metrics(const field& f, metrics_edge& out) {
  if (f.value.kind == json_kind::integer) {
    if (const auto port = as_integer(f, 0, 65'535))
      out.port = {static_cast<std::uint16_t>(*port), f.value.from()};
    return;
  }
  object_reader r{f.value, f.path, f.sink};
  if (!r.is_object())
    return;
  r.read("host", out.host, as_host);
  r.read("port", out.port, integer_in(0, 65'535));
  r.refuse_unknown();
}

void read_grpc(const field& f, grpc_edge& out) {
  if (f.value.kind == json_kind::integer) {
    if (const auto port = as_integer(f, 0, 65'535))
      out.port = {static_cast<std::uint16_t>(*port), f.value.from()};
    return;
  }
  object_reader r{f.value, f.path, f.sink};
  if (!r.is_object())
    return;
  r.read("host", out.host, as_host);
  r.read("port", out.port, integer_in(0, 65'535));
  r.read("api_keys_file", out.api_keys_file, as_secret_path);
  r.refuse_unknown();
}

/// An edge that has a port, as far as conflicts go.
struct named_port {
  std::string_view edge;
  const setting<std::uint16_t>* port;
};

/// Where conflicts of a node's edges are told.
struct complaints {
  std::string_view path;
  diagnostic_sink& sink;
};

void refuse_shared_port(const complaints& to, const named_port& a, const named_port& b,
                        std::string_view mend) {
  if (a.port == nullptr || b.port == nullptr || **a.port == 0 || **a.port != **b.port)
    return;
  to.sink.error(errc::conflict, b.port->from, std::string{to.path},
                fmt::format("{} ({}) and {} ({}) both ask for port {}; {}", a.edge,
                            to_string(a.port->from), b.edge, to_string(b.port->from), **a.port,
                            mend));
}

void refuse_shared_ports(const node_config& node, const complaints& to) {
  const named_port http{"http", node.http ? &node.http->port : nullptr};
  const named_port metrics{"metrics", node.metrics ? &node.metrics->port : nullptr};
  const named_port grpc{"grpc", node.grpc ? &node.grpc->port : nullptr};
  refuse_shared_port(to, http, metrics,
                     "change one, or remove metrics: the http edge serves /metrics too");
  refuse_shared_port(to, http, grpc, "change one");
  refuse_shared_port(to, metrics, grpc, "change one");
}

/// `false` says that the edge is not wanted, like null.
bool is_off(const json_value& v) { return v.kind == json_kind::boolean && !v.truth; }

void read_edges(const field& f, const build_capabilities& can, node_config& out) {
  object_reader r{f.value, f.path, f.sink};
  if (!r.is_object())
    return;
  out.http.reset();
  if (const auto* http = r.find("http"); http != nullptr && !is_off(*http))
    read_http(r.at("http", *http), out.http.emplace());
  if (const auto* metrics = r.find("metrics"); metrics != nullptr && !is_off(*metrics))
    read_metrics(r.at("metrics", *metrics), out.metrics.emplace());
  if (const auto* grpc = r.find("grpc"); grpc != nullptr && !is_off(*grpc) && can.grpc)
    read_grpc(r.at("grpc", *grpc), out.grpc.emplace());
  else if (grpc != nullptr && !is_off(*grpc))
    (void)r.at("grpc", *grpc)
        .wrong("this build has no gRPC edge; remove the line or write null, or build with "
               "TROUPE_GRPC=ON",
               errc::unsupported);
  r.refuse_unknown();
  refuse_shared_ports(out, {f.path, f.sink});
}

const std::vector<device> one_cpu{device{device_kind::cpu, 0}};

node_config read_node(const json_value& value, std::size_t index, bool alone,
                      const build_capabilities& can, diagnostic_sink& sink) {
  node_config node;
  node.router = {alone, {origin_kind::default_value, "", 0, alone ? "the only node" : ""}};
  if (alone)
    node.http.emplace();
  object_reader r{value, fmt::format("nodes.{}", index), sink};
  if (!r.is_object())
    return node;
  r.read("name", node.name, as_name);
  if (!r.has("name"))
    sink.error(errc::invalid_argument, value.from(), r.path_of("name"),
               "is missing; every node needs a name");
  r.read("address", node.address, as_address);
  if (!alone && !r.has("address"))
    sink.error(errc::invalid_argument, value.from(), r.path_of("address"),
               "is missing; in a cluster of several nodes each needs host:port");
  r.read("devices", node.devices, [&](const field& f) { return as_devices(f, can); });
  r.read("router", node.router, as_bool);
  if (const auto* edges = r.find("edges"))
    read_edges(r.at("edges", *edges), can, node);
  if (node.http && !*node.router)
    sink.error(errc::conflict, node.http->port.from, r.path_of("edges") + ".http",
               fmt::format("an http edge needs \"router\": true on the same node (router is false "
                           "by {})",
                           to_string(node.router.from)));
  if (node.grpc && !*node.router)
    sink.error(errc::conflict, node.grpc->port.from, r.path_of("edges") + ".grpc",
               fmt::format("a grpc edge needs \"router\": true on the same node (router is false "
                           "by {})",
                           to_string(node.router.from)));
  r.refuse_unknown();
  return node;
}

void check_unique(const std::vector<node_config>& nodes, diagnostic_sink& sink) {
  for (std::size_t i = 1; i < nodes.size() && !sink.full(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      const auto& a = nodes[j];
      const auto& b = nodes[i];
      if (!b.name->empty() && *a.name == *b.name)
        sink.error(errc::conflict, b.name.from, fmt::format("nodes.{}.name", i),
                   fmt::format("{} is also the name of the node at {}; names are unique",
                               in_quotes(*b.name), to_string(a.name.from)));
      if (*b.address && *a.address == *b.address)
        sink.error(errc::conflict, b.address.from, fmt::format("nodes.{}.address", i),
                   fmt::format("{} is also the address of the node at {}; addresses are unique",
                               to_string(**b.address), to_string(a.address.from)));
    }
  }
}

void complete_nodes(const json_value& list, bool has_secret, cluster_config& out,
                    diagnostic_sink& sink) {
  const bool any_devices =
      std::any_of(out.nodes.begin(), out.nodes.end(), [](const node_config& n) {
        return n.devices.from.kind != origin_kind::default_value;
      });
  for (auto& node : out.nodes) {
    if (!any_devices)
      node.devices = {one_cpu, {origin_kind::default_value, "", 0, "no node names devices"}};
  }
  if (std::none_of(out.nodes.begin(), out.nodes.end(),
                   [](const node_config& n) { return *n.router; }))
    sink.error(errc::invalid_argument, list.from(), "nodes",
               "no node is a router; write \"router\": true on the node where requests enter");
  if (out.nodes.size() > 1 && !has_secret)
    sink.error(errc::invalid_argument, list.from(), "secret_file",
               "is missing; several nodes prove to each other that they belong together with it");
}

} // namespace

void read_nodes(const json_value& root, const load_options& options, cluster_config& out,
                diagnostic_sink& sink) {
  object_reader r{root, "", sink};
  const auto* nodes = r.find("nodes");
  if (nodes == nullptr) {
    node_config local;
    local.name = {"local", {}};
    local.http.emplace();
    local.devices = {one_cpu, {origin_kind::default_value, "", 0, "all devices here"}};
    r.read("devices", local.devices,
           [&](const field& f) { return as_devices(f, options.capabilities); });
    if (const auto* edges = r.find("edges"))
      read_edges(r.at("edges", *edges), options.capabilities, local);
    out.nodes.push_back(std::move(local));
    return;
  }
  for (const std::string_view name : {"edges", "devices"}) {
    if (const auto* value = r.find(name))
      (void)r.at(name, *value)
          .wrong("belongs into a node when the file has \"nodes\"; move it there", errc::conflict);
  }
  if (nodes->kind != json_kind::array || nodes->items.empty() || nodes->items.size() > most_nodes) {
    (void)r.at("nodes", *nodes)
        .wrong(fmt::format("must be a list of 1 to {} nodes; leave it out for one node here",
                           most_nodes));
    return;
  }
  const bool alone = nodes->items.size() == 1;
  for (std::size_t i = 0; i < nodes->items.size() && !sink.full(); ++i)
    out.nodes.push_back(read_node(nodes->items[i], i, alone, options.capabilities, sink));
  check_unique(out.nodes, sink);
  complete_nodes(*nodes, r.has("secret_file"), out, sink);
}

void add_repository_edges(const json_value& root, const build_capabilities& can, node_config& node,
                          diagnostic_sink& sink) {
  const auto errors = sink.error_count();
  const auto* edges = root.find("edges");
  const auto open = [&](std::string_view name) {
    return edges == nullptr || edges->find(name) == nullptr;
  };
  if (!node.http && open("http"))
    node.http.emplace();
  const http_edge usual;
  const auto& http = node.http ? *node.http : usual;
  const auto behind = [&](int steps) -> setting<std::uint16_t> {
    const int first = *http.port;
    const bool room = first != 0 && first + steps <= 65'535;
    return {static_cast<std::uint16_t>(room ? first + steps : 0),
            {origin_kind::default_value, "", 0, room ? "behind HTTP's" : "a free one"}};
  };
  // What is said of one door leaves the rest of it as it would be.
  const auto complete = [&](auto& door, int steps) {
    if (!is_explicit(door.host.from))
      door.host = http.host;
    if (!is_explicit(door.port.from))
      door.port = behind(steps);
  };
  if (!node.grpc && open("grpc") && can.grpc)
    node.grpc.emplace();
  if (node.grpc)
    complete(*node.grpc, 1);
  if (!node.metrics && open("metrics"))
    node.metrics.emplace();
  if (node.metrics)
    complete(*node.metrics, 2);
  if (errors == 0)
    refuse_shared_ports(node, {"edges", sink});
}

} // namespace troupe::config
