#include "config/cluster_reader.hpp"
#include "config/hf_cache.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <thread>

#include "config/files.hpp"
#include "config/reader.hpp"

namespace troupe::config {

namespace {

constexpr std::array<named<troupe::log_level>, 7> log_levels{{
    {"trace", troupe::log_level::trace},
    {"debug", troupe::log_level::debug},
    {"info", troupe::log_level::info},
    {"warn", troupe::log_level::warn},
    {"error", troupe::log_level::error},
    {"critical", troupe::log_level::critical},
    {"off", troupe::log_level::off},
}};

constexpr std::array<named<routing_policy>, 3> routing_policies{{
    {"prefix", routing_policy::prefix},
    {"least_loaded", routing_policy::least_loaded},
    {"round_robin", routing_policy::round_robin},
}};

constexpr std::array<named<control_mode>, 3> control_modes{{
    {"none", control_mode::none},
    {"explicit", control_mode::by_request},
    {"poll", control_mode::poll},
}};

void read_limits(const json_value& value, cluster_config& out, diagnostic_sink& sink) {
  object_reader r{value, "limits", sink};
  r.read("max_queued_requests", out.limits.max_queued_requests, integer_in(1, 1'000'000));
  r.read("slow_reader_timeout_s", out.limits.slow_reader_timeout, as_seconds);
  r.read("resume_limit_s", out.limits.resume_limit, as_seconds);
  r.read("shutdown_deadline_s", out.limits.shutdown_deadline, as_seconds);
  r.refuse_unknown();
}

std::optional<std::vector<std::string>> as_names(const field& f) {
  if (f.value.kind != json_kind::array)
    return f.wrong("must be a list of names of models, e.g. [\"bard\"], or [\"*\"] for all");
  std::vector<std::string> names;
  for (const auto& item : f.value.items) {
    if (item.kind != json_kind::string || item.text.empty())
      return f.wrong("must hold names of models alone");
    names.push_back(item.text);
  }
  return names;
}

void read_model_control(const json_value& value, control_settings& out, diagnostic_sink& sink) {
  object_reader r{value, "model_control", sink};
  r.read("mode", out.mode, [](const field& f) { return as_enum<control_mode>(f, control_modes); });
  r.read("load_models", out.load_models, as_names);
  r.read("poll_interval_s", out.poll_interval, as_seconds);
  r.refuse_unknown();
  if (!out.load_models->empty() && *out.mode != control_mode::by_request)
    sink.error(errc::conflict, out.load_models.from, "model_control.load_models",
               "needs model_control.mode explicit; the other modes load all models");
}

/// Changes are made where they were asked for, and other nodes would not hear of them.
void check_model_control(const cluster_config& out, diagnostic_sink& sink) {
  if (*out.model_control.mode == control_mode::none || out.nodes.empty() ||
      (out.nodes.size() == 1 && !*out.nodes.front().address))
    return;
  sink.error(errc::unsupported, out.model_control.mode.from, "model_control.mode",
             "needs a cluster of one node without an address");
}

void read_wire(const json_value& value, cluster_config& out, diagnostic_sink& sink) {
  object_reader r{value, "wire", sink};
  r.read("heartbeat_s", out.wire.heartbeat, as_seconds);
  r.read("dead_after_s", out.wire.dead_after, as_seconds);
  r.read("transports", out.wire.transports, as_string);
  r.read("devices", out.wire.devices, as_string);
  r.refuse_unknown();
  if (*out.wire.dead_after < 2 * *out.wire.heartbeat)
    sink.error(errc::conflict, value.from(), "wire.dead_after_s",
               fmt::format("{} ms is less than twice wire.heartbeat_s ({} ms): a node would be "
                           "declared dead for one heartbeat that is late",
                           out.wire.dead_after->count(), out.wire.heartbeat->count()));
}

void read_cpu(const json_value& value, cluster_config& out, diagnostic_sink& sink) {
  object_reader r{value, "cpu", sink};
  r.read("threads", out.cpu_threads, integer_in(1, 1024));
  r.refuse_unknown();
}

void read_routing(const json_value& value, cluster_config& out, diagnostic_sink& sink) {
  object_reader r{value, "routing", sink};
  r.read("policy", out.routing,
         [](const field& f) { return as_enum<routing_policy>(f, routing_policies); });
  r.refuse_unknown();
}

std::optional<std::filesystem::path> as_directory(const field& f) {
  const auto path = as_path(f);
  if (!path)
    return std::nullopt;
  std::error_code ec;
  if (!std::filesystem::is_directory(*path, ec))
    return f.wrong(fmt::format("there is no directory '{}'", path->string()), errc::not_found);
  return path;
}

} // namespace

void read_cluster(const json_value& root, const load_options& options, cluster_config& out,
                  diagnostic_sink& sink) {
  const auto machine =
      options.hardware_threads > 0 ? options.hardware_threads : std::thread::hardware_concurrency();
  out.cpu_threads = {std::max(machine, 1U),
                     {origin_kind::default_value, "", 0, "all hardware threads"}};
  object_reader r{root, "", sink};
  if (!r.is_object())
    return;
  r.read("cluster", out.cluster, as_name);
  r.read("secret_file", out.secret_file,
         [&](const field& f) { return as_cluster_secret(f, options.will_make_secret); });
  r.read("model_repository", out.model_repository, as_directory);
  if (!r.has("model_repository"))
    sink.error(errc::invalid_argument, root.from(), "model_repository",
               "is missing; give the directory that holds <model>/<version>/model.json");
  r.read("backend_directory", out.backend_directory, as_directory);
  out.cache_directory = {cache_directory(options.environment),
                         {origin_kind::default_value, "", 0, "XDG_CACHE_HOME or HOME"}};
  r.read("cache_directory", out.cache_directory, as_path);
  r.read("log_level", out.log_level,
         [](const field& f) { return as_enum<troupe::log_level>(f, log_levels); });
  if (const auto* limits = r.find("limits"))
    read_limits(*limits, out, sink);
  if (const auto* control = r.find("model_control"))
    read_model_control(*control, out.model_control, sink);
  if (const auto* wire = r.find("wire"))
    read_wire(*wire, out, sink);
  if (const auto* cpu = r.find("cpu"))
    read_cpu(*cpu, out, sink);
  if (const auto* routing = r.find("routing"))
    read_routing(*routing, out, sink);
  for (const auto* name : {"nodes", "models", "edges", "devices"})
    r.accept(name);
  read_nodes(root, options, out, sink);
  check_model_control(out, sink);
  r.refuse_unknown();
}

} // namespace troupe::config
