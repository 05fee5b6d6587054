#include "actors/cli/compare_side.hpp"

#include "actors/cli/engine_options.hpp"
#include "actors/cli/own_process.hpp"
#include "troupe/config/diagnostics.hpp"

#include <fmt/core.h>
#include <poll.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <utility>

namespace troupe::cli {

namespace {

using namespace std::chrono_literals;

constexpr std::size_t kept_lines = 20;
/// What a child has to end in once it is asked to; nothing of it is in use then.
constexpr auto farewell = 5s;

/// Reads the file as the child will, so that every mistake is told before anything is started.
result<config::cluster_config> read(const compare_side::recipe& how) {
  auto loaded = config::check_cluster(how.config.file, engine_options_of(how.config));
  for (const auto& finding : loaded.diagnostics)
    std::fprintf(stderr, "%s: %s\n", how.name.c_str(), to_string(finding).c_str());
  if (config::has_errors(loaded.diagnostics) || !loaded.config)
    return fail(errc::invalid_argument,
                fmt::format("mend the errors above; `troupe check {}` explains every value",
                            how.config.file.string()));
  if (loaded.config->nodes.size() > 1 || *loaded.config->nodes.front().address)
    return fail(errc::unsupported,
                fmt::format("{} has several nodes or an address; compare clusters of one node "
                            "without an address",
                            how.config.file.string()));
  return std::move(*loaded.config);
}

std::vector<std::string> command_of(const compare_side::recipe& how,
                                    const config::node_config& node) {
  std::vector<std::string> all{"troupe", "up", how.config.file.string(), "--port", "0"};
  for (const auto& set : how.config.set)
    all.insert(all.end(), {"--set", set});
  // Two of them run at a time.
  if (node.grpc)
    all.insert(all.end(), {"--set", "edges.grpc=0"});
  if (node.metrics)
    all.insert(all.end(), {"--set", "edges.metrics=0"});
  if (!how.config.backend_directory.empty())
    all.insert(all.end(), {"--backend-directory", how.config.backend_directory.string()});
  if (!how.config.log_level.empty())
    all.insert(all.end(), {"--log-level", how.config.log_level});
  if (!how.executor.empty())
    all.insert(all.end(), {"--executor", how.executor});
  return all;
}

} // namespace

result<std::unique_ptr<compare_side>> compare_side::start(const recipe& how,
                                                          const std::function<void()>& waiting) {
  const auto config = read(how);
  if (!config)
    return fail(config.error());
  std::unique_ptr<compare_side> made{new compare_side{how.name}};
  auto started = start_own_process(
      command_of(how, config->nodes.front()),
      [raw = made.get()](child_stream, std::string_view line) { raw->take(std::string{line}); });
  if (!started)
    return fail(started.error());
  made->process_ = std::move(*started);
  made->reader_ = std::thread{[raw = made.get()] { raw->read_on(); }};
  if (auto ready = made->await_ready(waiting); !ready)
    return fail(ready.error());
  return made;
}

compare_side::~compare_side() {
  {
    const std::lock_guard lock{mutex_};
    stop_ = true;
  }
  if (reader_.joinable())
    reader_.join();
}

void compare_side::take(std::string line) {
  constexpr std::string_view mark = "listening on http://";
  const std::lock_guard lock{mutex_};
  if (line.rfind(mark, 0) == 0)
    found_url_ = line.substr(mark.size() - std::string_view{"http://"}.size());
  ready_ = ready_ || line.rfind("ready", 0) == 0;
  last_lines_.push_back(std::move(line));
  if (last_lines_.size() > kept_lines)
    last_lines_.pop_front();
}

/// The thread that owns the process from its start to its end.
void compare_side::read_on() {
  auto killed_at = std::chrono::steady_clock::time_point::max();
  bool told = false;
  while (true) {
    std::vector<pollfd> all;
    process_.add_to(all);
    ::poll(all.data(), all.size(), static_cast<int>((50ms).count()));
    process_.take_output();
    if (const auto status = process_.ended()) {
      const std::lock_guard lock{mutex_};
      end_ = describe_exit(*status);
      return;
    }
    const auto now = std::chrono::steady_clock::now();
    bool stop = false;
    {
      const std::lock_guard lock{mutex_};
      stop = stop_;
    }
    if (stop && !std::exchange(told, true)) {
      process_.signal(SIGTERM);
      killed_at = now + farewell;
    }
    if (now > killed_at)
      process_.signal(SIGKILL);
  }
}

bool compare_side::look(bool& ready) {
  const std::lock_guard lock{mutex_};
  ready = ready_;
  url_ = found_url_;
  return end_.empty();
}

result<void> compare_side::await_ready(const std::function<void()>& waiting) {
  bool ready = false;
  while (look(ready)) {
    if (ready)
      return {};
    waiting();
    std::this_thread::sleep_for(20ms);
  }
  return fail(errc::peer_down, epitaph());
}

std::string compare_side::epitaph() {
  const std::lock_guard lock{mutex_};
  if (end_.empty())
    return {};
  auto text = fmt::format("the process of the {} side ended with {}", name_, end_);
  for (const auto& line : last_lines_)
    text += "\n  " + line;
  return text;
}

} // namespace troupe::cli
