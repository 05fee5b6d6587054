#include "actors/cli/launcher.hpp"

#include "actors/cli/local_address.hpp"
#include "actors/cli/own_process.hpp"
#include "actors/node/backoff.hpp"

#include <fmt/core.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <utility>

namespace troupe::cli {

namespace {

using steady = std::chrono::steady_clock;

/// One node and the process that is it now, if one is.
struct seat {
  std::string name;
  bool front = false;
  std::vector<std::string> command;
  child_process process;
  actors::backoff pause;
  steady::time_point again{};
  /// It is not started any more.
  bool done = false;
  bool told_to_end = false;
};

enum class phase { serving, ending_fronts, ending_all };

/// Writes a line of a node to the stream of its own, with the node's name before it. The stream may
/// be slow; what cannot be written is lost.
void print_line(const std::string& name, child_stream from, std::string_view line) {
  const auto whole = fmt::format("{} | {}\n", name, line);
  std::string_view left{whole};
  while (!left.empty()) {
    const auto written = ::write(from == child_stream::output ? STDOUT_FILENO : STDERR_FILENO,
                                 left.data(), left.size());
    if (written < 0 && errno == EINTR)
      continue;
    if (written <= 0)
      return;
    left.remove_prefix(static_cast<std::size_t>(written));
  }
}

class launcher {
public:
  explicit launcher(std::vector<seat> seats) : seats_{std::move(seats)} {
    sigset_t set;
    sigemptyset(&set);
    for (const int signal : {SIGINT, SIGTERM, SIGCHLD})
      sigaddset(&set, signal);
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    signals_ = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  }
  ~launcher() { ::close(signals_); }
  launcher(const launcher&) = delete;
  launcher& operator=(const launcher&) = delete;

  int run() {
    while (true) {
      start_due();
      wait();
      take_signals();
      for (auto& one : seats_) {
        one.process.take_output();
        if (const auto status = one.process.ended())
          on_end(one, *status);
      }
      go_on_ending();
      if (std::all_of(seats_.begin(), seats_.end(), [](const seat& s) { return s.done; }))
        return good;
    }
  }

private:
  void start_due() {
    for (auto& one : seats_) {
      if (one.done || one.process.running() || steady::now() < one.again)
        continue;
      auto started = start_own_process(one.command,
                                       [name = one.name](child_stream from, std::string_view line) {
                                         print_line(name, from, line);
                                       });
      if (started) {
        one.process = std::move(*started);
        continue;
      }
      one.again = steady::now() + one.pause.next(steady::now());
    }
  }

  void wait() {
    constexpr std::chrono::milliseconds longest{1000};
    auto limit = longest;
    for (const auto& one : seats_)
      if (!one.done && !one.process.running())
        limit = std::clamp(
            std::chrono::duration_cast<std::chrono::milliseconds>(one.again - steady::now()) +
                std::chrono::milliseconds{1},
            std::chrono::milliseconds{0}, limit);
    std::vector<pollfd> all{{signals_, POLLIN, 0}};
    for (const auto& one : seats_)
      one.process.add_to(all);
    ::poll(all.data(), all.size(), static_cast<int>(limit.count()));
  }

  void take_signals() {
    signalfd_siginfo info;
    while (::read(signals_, &info, sizeof info) == sizeof info) {
      if (info.ssi_signo == SIGCHLD)
        continue;
      if (phase_ != phase::serving) {
        std::fputs("troupe: second signal, ending at once\n", stderr);
        for (auto& one : seats_)
          one.process.signal(SIGKILL);
        _exit(interrupted);
      }
      phase_ = phase::ending_fronts;
      std::fputs("troupe: draining all nodes, fronts first; a second signal ends at once\n",
                 stderr);
      for (auto& one : seats_)
        one.done = !one.process.running();
    }
  }

  void on_end(seat& one, int status) {
    if (one.told_to_end || status == 0 || phase_ != phase::serving) {
      if (!one.told_to_end)
        fmt::print(stderr, "troupe: node '{}' has ended\n", one.name);
      one.done = true;
      return;
    }
    const auto pause = one.pause.next(steady::now());
    one.again = steady::now() + pause;
    fmt::print(stderr, "troupe: node '{}' ended with {}; started again in {} ms\n", one.name,
               describe_exit(status), pause.count());
  }

  void go_on_ending() {
    if (phase_ == phase::serving)
      return;
    const bool fronts_left =
        std::any_of(seats_.begin(), seats_.end(), [](const seat& s) { return s.front && !s.done; });
    if (!fronts_left)
      phase_ = phase::ending_all;
    for (auto& one : seats_) {
      const bool turn = one.front || phase_ == phase::ending_all;
      if (turn && !one.done && !std::exchange(one.told_to_end, true))
        one.process.signal(SIGTERM);
    }
  }

  std::vector<seat> seats_;
  phase phase_ = phase::serving;
  int signals_ = -1;
};

std::vector<std::string> command_of(const up_options& o, const std::string& node) {
  std::vector<std::string> all{"troupe", "up", o.config.file.string(), "--node", node};
  for (const auto& set : o.config.set)
    all.insert(all.end(), {"--set", set});
  if (!o.config.log_level.empty())
    all.insert(all.end(), {"--log-level", o.config.log_level});
  if (!o.executor.empty())
    all.insert(all.end(), {"--executor", o.executor});
  if (o.fault_injection)
    all.emplace_back("--fault-injection");
  return all;
}

} // namespace

int run_launcher(const up_options& o, const config::cluster_config& cluster) {
  std::vector<seat> seats;
  std::string others;
  for (const auto& node : cluster.nodes) {
    const auto local = is_local((*node.address)->host);
    if (!local)
      std::fprintf(stderr, "troupe up: node '%s': %s\n", node.name->c_str(),
                   local.error().note.c_str());
    if (local && *local)
      seats.push_back({.name = *node.name,
                       .front = *node.router,
                       .command = command_of(o, *node.name),
                       .process = {},
                       .pause = {}});
    else
      others += (others.empty() ? "" : ", ") + *node.name;
  }
  if (seats.empty()) {
    std::fprintf(stderr,
                 "troupe up: no node of %s has an address of this machine (%s); choose one with "
                 "--node NAME\n",
                 o.config.file.c_str(), others.c_str());
    return failed;
  }
  fmt::print("cluster {} of {}: {} processes here{}{}\n", *cluster.cluster, cluster.file.string(),
             seats.size(), others.empty() ? "" : "; elsewhere: ", others);
  std::fflush(stdout);
  return launcher{std::move(seats)}.run();
}

} // namespace troupe::cli
