#include "actors/cli/commands.hpp"
#include "actors/cli/engine_options.hpp"
#include "actors/cli/launcher.hpp"
#include "actors/cli/own_process.hpp"
#include "actors/cli/progress.hpp"
#include "actors/cli/secret.hpp"
#include "actors/cli/signals.hpp"
#include "actors/cli/system_config.hpp"
#include "troupe/actors/cluster.hpp"
#include "troupe/base/log.hpp"
#include "troupe/config/diagnostics.hpp"
#include "troupe/transport/node_id.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace troupe::cli {

namespace {

using namespace std::chrono_literals;

int complain(const error& e) {
  std::fprintf(stderr, "troupe up: %s\n", e.note.empty() ? to_string(e).c_str() : e.note.c_str());
  return failed;
}

void print_start(const config::cluster_config& c, const actors::cluster& running,
                 const std::string& node) {
  fmt::print("cluster {} of {}\n", *c.cluster, c.file.string());
  const auto* self = node.empty() ? &c.nodes.front() : config::find_node(c, node);
  if (running.http_port() != 0)
    fmt::print("listening on http://{}\n",
               to_string(config::address{*self->http->host, running.http_port()}));
  if (running.grpc_port() != 0)
    fmt::print("listening on grpc://{}\n",
               to_string(config::address{*self->grpc->host, running.grpc_port()}));
  if (running.metrics_port() != 0)
    fmt::print("metrics at http://{}/metrics\n",
               to_string(config::address{*self->metrics->host, running.metrics_port()}));
  std::fflush(stdout);
}

void print_ready(const config::cluster_config& c, const actors::cluster& running,
                 std::chrono::steady_clock::time_point begin) {
  for (const auto& line : running.cast())
    fmt::print("  {}\n", line);
  std::vector<std::string> names;
  for (const auto& model : c.models)
    names.push_back(model.engine.served_model_name->front());
  for (const auto& model : c.custom_models)
    names.push_back(model.name);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  fmt::print("ready after {:.2f} s: {}\n", took.count(), fmt::join(names, ", "));
  std::fflush(stdout);
}

/// Waits until the models are loaded. Nothing: a signal came before.
std::optional<result<void>> await_ready(actors::cluster& running, const signal_gate& gate) {
  while (true) {
    auto ready = running.await_ready(50ms);
    if (ready || ready.error().code != errc::timed_out)
      return ready;
    if (gate.wait(0ms))
      return std::nullopt;
  }
}

/// Serves until a signal; false when the node died instead.
bool serve(const actors::cluster& running, const signal_gate& gate) {
  while (!gate.wait(100ms))
    if (!running.alive() || running.drained())
      return running.drained();
  return true;
}

bool all_on_loopback(const config::cluster_config& c) {
  return std::all_of(c.nodes.begin(), c.nodes.end(), [](const config::node_config& node) {
    return *node.address && net::is_loopback({(*node.address)->host, (*node.address)->port});
  });
}

/// A cluster whose nodes are all started here, for this machine alone, needs no person who copies
/// its secret about.
result<void> make_missing_secret(const up_options& o) {
  auto options = engine_options_of(o.config);
  options.will_make_secret = true;
  const auto loaded = config::check_cluster(o.config.file, options);
  if (!loaded.config || !o.config.node.empty() || loaded.config->nodes.size() < 2 ||
      !all_on_loopback(*loaded.config))
    return {};
  const auto& file = *loaded.config->secret_file;
  if (!file || std::filesystem::exists(*file))
    return {};
  const auto made = make_secret(*file);
  if (made)
    std::fprintf(stderr, "troupe: made the secret of this cluster, %s\n", file->c_str());
  return made;
}

/// The options of model control are values of the file, said last.
file_options with_control(const up_options& o) {
  auto made = o.config;
  if (!o.control_mode.empty())
    made.set.push_back("model_control.mode=" + o.control_mode);
  if (!o.load_models.empty())
    made.set.push_back("model_control.load_models=" + nlohmann::json(o.load_models).dump());
  if (o.poll_seconds)
    made.set.push_back("model_control.poll_interval_s=" + std::to_string(*o.poll_seconds));
  return made;
}

actors::control_options control_of(const up_options& o, const config::control_settings& wanted) {
  actors::control_options made;
  made.mode = *wanted.mode;
  made.poll_interval = *wanted.poll_interval;
  if (made.mode != actors::control_mode::none)
    made.how = std::make_shared<const config::load_options>(engine_options_of(with_control(o)));
  return made;
}

/// Runs the node of the file that this process is.
int run_node(const up_options& o, const config::cluster_config& config, const signal_gate& gate) {
  const auto begin = std::chrono::steady_clock::now();
  // Outlives the actor system, whose end waits for threads that may be busy.
  std::optional<impatience> second;
  system_config caf_config;
  if (const auto wired = actors::add_wire(caf_config, config, o.config.node); !wired)
    return complain(wired.error());
  caf::actor_system system{caf_config};
  progress_line line;
  actors::start_options start;
  start.node = o.config.node;
  start.executor = o.executor;
  start.fault_injection = o.fault_injection;
  start.control = control_of(o, config.model_control);
  start.progress = [&line](std::string_view model, double share, std::string_view what) {
    line.show(share, fmt::format("{}: {}", model, what));
  };
  auto running = actors::start_cluster(system, config, std::move(start));
  if (!running)
    return complain(running.error());
  print_start(config, *running, o.config.node);
  const auto ready = await_ready(*running, gate);
  line.clear();
  if (!ready) {
    second.emplace(gate);
    running->stop(0ms);
    return good;
  }
  if (!*ready) {
    const auto why = ready->error();
    running->stop(0ms);
    return complain(why);
  }
  print_ready(config, *running, begin);
  if (!serve(*running, gate))
    return complain(running->why_ended());
  if (running->drained()) {
    running->stop(0ms);
    std::fprintf(stderr, "troupe: drained and stopped\n");
    return good;
  }
  const std::chrono::milliseconds deadline = *config.limits.shutdown_deadline;
  std::fprintf(stderr, "troupe: draining for at most %.0f s; a second signal ends at once\n",
               std::chrono::duration<double>(deadline).count());
  second.emplace(gate);
  running->stop(deadline);
  std::fprintf(stderr, "troupe: stopped\n");
  return good;
}

} // namespace

int run_up(const up_options& o) {
  const signal_gate gate;
  if (o.parent != 0 && !end_with_parent(o.parent))
    return failed;
  if (const auto made = make_missing_secret(o); !made)
    return complain(made.error());
  auto how = engine_options_of(with_control(o));
  how.as_started = true;
  auto loaded = config::check_cluster(o.config.file, how);
  for (const auto& finding : loaded.diagnostics)
    std::fprintf(stderr, "%s\n", to_string(finding).c_str());
  if (config::has_errors(loaded.diagnostics) || !loaded.config) {
    std::fprintf(stderr,
                 "troupe up: mend the errors above; `troupe check %s` explains every value\n",
                 o.config.file.c_str());
    return failed;
  }
  const auto& config = *loaded.config;
  set_log_level(*config.log_level);
  if (o.config.node.empty() && config.nodes.size() > 1)
    return run_launcher(o, config);
  return run_node(o, config, gate);
}

} // namespace troupe::cli
