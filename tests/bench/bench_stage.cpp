// The stage's edges against what they stand on: gRPC streams and unary calls against bare grpc++
// with the same messages, events over HTTP, a hybrid that only forwards. Interleaved, medians of
// seven.
//
//   bench_stage REPOSITORY_ROOT [streams] [echo] [first] [hybrid] [peer=PORT,PID]
//   [cpus=SERVERS/CLIENTS]
//                                                                            all by default
//
// peer= names the gRPC port and the process of another server that has the model "identity"; echo
// measures it too. cpus= gives the servers and the clients CPUs of their own, as
// FIRST-LAST/FIRST-LAST; the peer is started with taskset on the first of them by who asks.
// `troupe` lies beside this program, the backends and stage_clock.so in ../lib/stage.

#include "tests/bench/stage_parts.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

namespace {

using namespace stage;
namespace fs = std::filesystem;

constexpr int rounds = 7;

struct figures {
  std::vector<double> all;
  void add(double x) { all.push_back(x); }
  [[nodiscard]] double at(double share) const {
    auto sorted = all;
    std::sort(sorted.begin(), sorted.end());
    return sorted[static_cast<std::size_t>(
        std::llround(share * static_cast<double>(sorted.size() - 1)))];
  }
  [[nodiscard]] double median() const { return at(0.5); }
  [[nodiscard]] std::string text(const char* format) const {
    return fmt::format(
        fmt::runtime(std::string{"{:"} + format + "} ({:" + format + "} to {:" + format + "})"),
        median(), at(0), at(1));
  }
};

void write(const fs::path& file, const std::string& text) {
  fs::create_directories(file.parent_path());
  std::ofstream{file} << text;
}

std::string read(const fs::path& file) {
  std::ifstream in{file};
  return {std::istreambuf_iterator<char>{in}, {}};
}

/// A repository with bard, simulated; bard behind a hybrid that forwards; and the identity.
class repository {
public:
  explicit repository(const fs::path& root)
      : at_{fs::temp_directory_path() / fmt::format("bench-stage-{}", getpid())} {
    const auto hf = at_ / "hf";
    fs::create_directories(hf);
    for (const auto& file : fs::directory_iterator{root / "examples/models/bard/hf"})
      if (file.path().filename() != "config.json")
        fs::create_symlink(fs::absolute(file.path()), hf / file.path().filename());
    auto config = read(root / "examples/models/bard/hf/config.json");
    config.insert(config.rfind('}'),
                  fmt::format(R"(, "simulated": {{"step_us": {}, "token_us": 0, )"
                              R"("eos_probability": 0.0}})",
                              step_ns / 1000));
    write(hf / "config.json", config);
    const auto json = fmt::format(R"({{"model": "{}", "max_num_seqs": {}}})", hf.string(), streams);
    write(served() / "bard/1/model.json", json);
    write(served() / "identity/config.pbtxt", "backend: \"identity\"\n");
    fs::create_directories(served() / "identity/1");
    write(hybrid() / "bard/1/model.json", json);
    write(hybrid() / "forwarded/1/model.json", json);
    write(hybrid() / "forwarded/config.pbtxt", "backend: \"forward\"\n");
    write(cluster(),
          fmt::format(R"({{"model_repository": "{}", "edges": {{"http": 0, "grpc": 0}}}})",
                      served().string()));
  }
  ~repository() { fs::remove_all(at_); }
  repository(const repository&) = delete;
  repository& operator=(const repository&) = delete;

  [[nodiscard]] fs::path served() const { return at_ / "served"; }
  [[nodiscard]] fs::path hybrid() const { return at_ / "hybrid"; }
  [[nodiscard]] fs::path cluster() const { return at_ / "cluster.json"; }
  [[nodiscard]] fs::path message() const { return at_ / "message"; }

private:
  fs::path at_;
};

/// Messages a CPU second of the server: of grpc++ alone, ours, and ours as events over HTTP.
void bench_streams(const process& ours, const process& bare) {
  constexpr int tokens = 300;
  figures bare_rate;
  figures grpc_rate;
  figures event_rate;
  figures to_bare;
  figures to_events;
  std::uint64_t counts[3]{};
  for (int round = 0; round <= rounds; ++round) {
    const auto rate = [&](const process& server, const auto& run, std::uint64_t& count) {
      const auto before = server.cpu_s();
      const auto made = run();
      count = made.messages;
      return static_cast<double>(made.messages) / (server.cpu_s() - before);
    };
    const auto plain = rate(
        bare, [&] { return run_streams(bare.port("grpc"), tokens); }, counts[0]);
    const auto grpc = rate(
        ours, [&] { return run_streams(ours.port("grpc"), tokens); }, counts[1]);
    const auto events = rate(
        ours, [&] { return run_events(ours.port("http"), tokens); }, counts[2]);
    if (round == 0)
      continue;
    bare_rate.add(plain);
    grpc_rate.add(grpc);
    event_rate.add(events);
    to_bare.add(grpc / plain);
    to_events.add(grpc / events);
  }
  fmt::print("streams, {} at once, {} messages each: messages a CPU second of the server\n"
             "  bare grpc++ {}, gRPC {}, events over HTTP {}\n"
             "  gRPC / bare {} (aim 0.8); gRPC / events {}; messages of a run {} / {} / {}\n",
             streams, tokens, bare_rate.text(".0f"), grpc_rate.text(".0f"), event_rate.text(".0f"),
             to_bare.text(".3f"), to_events.text(".3f"), counts[0], counts[1], counts[2]);
}

/// Another server, with the processes that it started; port 0: none.
struct other_server {
  int port = 0;
  pid_t pid = 0;
};

/// Requests a second, and a CPU second of a server's processes.
struct echo_rates {
  figures wall;
  figures cpu;
  void add(int requests, double rate, double used) {
    wall.add(rate);
    cpu.add(requests / used);
  }
  [[nodiscard]] std::string text() const {
    return fmt::format("{} requests/s, {} a CPU second", wall.text(".0f"), cpu.text(".0f"));
  }
};

/// The CPUs of the servers and the clients; empty: all.
struct cpu_shares {
  cpu_range servers;
  cpu_range clients;
};

figures ratios(const figures& a, const figures& b) {
  figures made;
  for (std::size_t i = 0; i < a.all.size(); ++i)
    made.add(a.all[i] / b.all[i]);
  return made;
}

/// On few cores the clients take their share of every server's time, so that the ratio of rates
/// says less than the ratio of what the servers use.
void bench_echo(const process& ours, const process& bare, other_server peer) {
  for (const int clients : {1, 8}) {
    const int requests = 4000 / clients;
    echo_rates plain;
    echo_rates own;
    echo_rates theirs;
    for (int round = 0; round <= rounds; ++round) {
      const auto measure = [&](int port, pid_t pid, echo_rates& rates) {
        const auto before = tree_cpu_s(pid);
        const auto rate = run_echo(port, "identity", clients, requests);
        if (round > 0)
          rates.add(clients * requests, rate, tree_cpu_s(pid) - before);
      };
      measure(bare.port("grpc"), bare.pid(), plain);
      measure(ours.port("grpc"), ours.pid(), own);
      if (peer.port != 0)
        measure(peer.port, peer.pid, theirs);
    }
    fmt::print("identity, 1 KiB, {} at a time\n  bare grpc++ {}\n  ours {}\n"
               "  ours / bare {} (aim 0.6), a CPU second {}\n",
               clients, plain.text(), own.text(), ratios(own.wall, plain.wall).text(".3f"),
               ratios(own.cpu, plain.cpu).text(".3f"));
    if (peer.port != 0)
      fmt::print("  the peer {}\n  ours / peer {} (aim 3), a CPU second {}; bare / peer {}\n",
                 theirs.text(), ratios(own.wall, theirs.wall).text(".2f"),
                 ratios(own.cpu, theirs.cpu).text(".2f"),
                 ratios(plain.wall, theirs.wall).text(".2f"));
  }
}

void bench_first(const process& ours, const step_ends& ends) {
  constexpr int asked = 400;
  figures behind;
  figures before;
  for (int i = 0; i < asked; ++i) {
    steady::time_point sent;
    const auto first = first_event(ours.port("http"), sent);
    const auto token = ends.first_after(sent);
    if (token == steady::time_point{} || token > first)
      give_up("no step was seen to end before its event");
    using us = std::chrono::duration<double, std::micro>;
    behind.add(us(first - token).count());
    before.add(us(token - sent).count() - static_cast<double>(step_ns) / 1000);
  }
  fmt::print("generate_stream, us from the engine's first token to the first byte at the client: "
             "p50 {:.0f}, p95 {:.0f} (aim 300)\n  from the request to the step, p50 {:.0f}\n",
             behind.median(), behind.at(0.95), before.median());
}

void bench_hybrid(const repository& models, const fs::path& backends) {
  const auto cost = measure_forward(models.hybrid().string(), backends.string());
  fmt::print(
      "hybrid that forwards: {:.0f} ns a request more (aim 2000; {:.0f} without), {:.1f} ns a "
      "token more (aim 0; {:.0f} without)\n",
      cost.request_ns - cost.plain_request_ns, cost.plain_request_ns,
      cost.token_ns - cost.plain_token_ns, cost.plain_token_ns);
}

} // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::string{argv[1]} == "--bare")
    return run_bare(read(argv[2]));
  // For a profiler beside it.
  if (argc == 3 && std::string{argv[1]} == "--load")
    while (true)
      (void)run_streams(std::atoi(argv[2]), 300);
  if (argc < 2)
    give_up("usage: bench_stage REPOSITORY_ROOT [streams] [echo] [first] [hybrid] [peer=PORT,PID] "
            "[cpus=SERVERS/CLIENTS]");
  std::set<std::string> wanted{argv + 2, argv + argc};
  other_server peer;
  std::erase_if(wanted, [&](const std::string& word) {
    if (word.rfind("peer=", 0) != 0)
      return false;
    if (std::sscanf(word.c_str(), "peer=%d,%d", &peer.port, &peer.pid) != 2)
      give_up("peer= wants PORT,PID");
    return true;
  });
  cpu_shares cpus;
  std::erase_if(wanted, [&](const std::string& word) {
    if (word.rfind("cpus=", 0) != 0)
      return false;
    if (std::sscanf(word.c_str(), "cpus=%d-%d/%d-%d", &cpus.servers.first, &cpus.servers.last,
                    &cpus.clients.first, &cpus.clients.last) != 4)
      give_up("cpus= wants FIRST-LAST/FIRST-LAST");
    run_on(cpus.clients);
    return true;
  });
  const auto does = [&](const char* what) { return wanted.empty() || wanted.contains(what); };
  const auto self = fs::read_symlink("/proc/self/exe");
  const auto stage = self.parent_path().parent_path() / "lib/stage";
  const repository models{fs::absolute(argv[1])};
  if (does("hybrid"))
    bench_hybrid(models, stage);
  const step_ends ends;
  const process ours{{(self.parent_path() / "troupe").string(), "up", models.cluster().string(),
                      "--executor", "simulated", "--backend-directory", stage.string()},
                     (stage / "stage_clock.so").string(),
                     "ready",
                     cpus.servers};
  if (does("first"))
    bench_first(ours, ends);
  std::ofstream{models.message(), std::ios::binary} << one_message(ours.port("grpc"));
  const process bare{
      {self.string(), "--bare", models.message().string()}, {}, "ready", cpus.servers};
  if (does("echo"))
    bench_echo(ours, bare, peer);
  if (does("streams"))
    bench_streams(ours, bare);
  return 0;
}
