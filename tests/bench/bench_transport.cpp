// Actors of two processes talk: over the wire by shared memory and by tcp, and over caf::io, in one
// run.
//   bench_transport [ROUNDS]         medians of ROUNDS (7) interleaved rounds, and ratios to
//   caf::io bench_transport --serve KIND     the other process; started by the bench itself
#include "troupe/base/log.hpp"
#include "troupe/transport/caf.hpp"

#include <caf/all.hpp>
#include <caf/io/all.hpp>

#include <fcntl.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <map>
#include <string>
#include <thread>
#include <vector>

extern char** environ;

namespace {

using troupe::net::shared_bytes;
using troupe::net::wire;
using clk = std::chrono::steady_clock;
using ping_atom = caf::atom_constant<caf::atom("ping")>;
using pong_atom = caf::atom_constant<caf::atom("pong")>;
using tick_atom = caf::atom_constant<caf::atom("tick")>;
using done_atom = caf::atom_constant<caf::atom("done")>;
using text = std::vector<char>;

/// caf_io: caf::io over tcp. shm, tcp: the wire, spinning, the woken actor on the progress thread.
/// shm_sleep: the wire without spinning.
const std::vector<std::string> kinds{"caf_io", "shm", "tcp", "shm_sleep"};

struct config : caf::actor_system_config {
  explicit config(const std::string& kind) {
    set("scheduler.policy", caf::atom("sharing"));
    set("scheduler.max-threads", 1);
    if (kind == "caf_io") {
      load<caf::io::middleman>();
      add_message_type<shared_bytes>("troupe.shared_bytes");
      return;
    }
    load<wire>();
    caf::put(content, "wire.transports", std::string{kind == "tcp" ? "tcp" : "posix,cma,tcp"});
    caf::put(content, "wire.devices", std::string{"lo"});
    caf::put(content, "wire.run-inline", kind != "shm_sleep");
    caf::put(content, "wire.spin-us", std::int64_t{kind == "shm_sleep" ? 0 : 50});
    caf::put(content, "wire.dead-after-ms", std::int64_t{30000});
  }
};

caf::behavior echo(caf::event_based_actor* self, int) {
  auto ticks = std::make_shared<std::uint64_t>(0);
  return {
      [](ping_atom, text& x) { return caf::make_message(pong_atom::value, std::move(x)); },
      [](ping_atom, const shared_bytes& x) {
        return caf::make_message(pong_atom::value, std::uint64_t{x.size()});
      },
      // One-way messages; the last one is answered.
      [=](tick_atom, const text&) { ++*ticks; },
      [=](done_atom) {
        return caf::make_message(done_atom::value, std::exchange(*ticks, std::uint64_t{0}));
      },
      [=](caf::exit_msg&) { self->quit(); },
  };
}

int serve(const std::string& kind) {
  config cfg{kind};
  caf::actor_system sys{cfg};
  const auto who = sys.spawn(echo, 0);
  std::uint16_t port = 0;
  if (kind == "caf_io") {
    port = *sys.middleman().publish(who, 0, "127.0.0.1");
  } else {
    wire::of(sys).publish("echo", who);
    port = wire::of(sys).listen({"127.0.0.1", 0})->port;
  }
  std::cout << "port " << port << std::endl;
  for (char c = 0; std::cin.get(c);) {
  }
  caf::anon_send_exit(who, caf::exit_reason::kill);
  return 0;
}

/// The other process.
struct server {
  explicit server(const std::string& kind) {
    std::array<int, 2> in{}, out{};
    if (::pipe2(in.data(), O_CLOEXEC) != 0 || ::pipe2(out.data(), O_CLOEXEC) != 0)
      std::abort();
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    const std::string self = std::filesystem::read_symlink("/proc/self/exe");
    std::string flag = "--serve", which = kind;
    std::array<char*, 4> argv{const_cast<char*>(self.c_str()), flag.data(), which.data(), nullptr};
    if (::posix_spawn(&pid, self.c_str(), &actions, nullptr, argv.data(), environ) != 0)
      std::abort();
    ::close(in[0]);
    ::close(out[1]);
    input = in[1];
    // UCX may say something of its own first.
    std::string line;
    for (char c = 0; !line.starts_with("port ") || c != '\n';) {
      if (c == '\n')
        line.clear();
      if (::read(out[0], &c, 1) != 1)
        std::abort();
      if (c != '\n')
        line += c;
    }
    ::close(out[0]);
    port = static_cast<std::uint16_t>(std::stoi(line.substr(5)));
  }
  ~server() {
    ::close(input);
    ::waitpid(pid, nullptr, 0);
  }
  pid_t pid = 0;
  int input = -1;
  std::uint16_t port = 0;
};

/// Sends a ping for each pong; tells `report` the time of a round trip in microseconds.
caf::behavior pinger(caf::event_based_actor* self, const caf::actor& to, const caf::actor& report,
                     int rounds) {
  auto left = std::make_shared<int>(rounds + rounds / 10);
  auto began = std::make_shared<clk::time_point>();
  self->send(to, ping_atom::value, text(64, 'x'));
  return {[=](pong_atom, text& x) {
    if (*left == rounds)
      *began = clk::now();
    if (--*left > 0)
      return self->send(to, ping_atom::value, std::move(x));
    const std::chrono::duration<double, std::micro> took = clk::now() - *began;
    self->send(report, took.count() / rounds);
    self->quit();
  }};
}

/// Keeps some 4 MiB buffers under way; tells bytes a microsecond, which is MB/s.
caf::behavior pusher(caf::event_based_actor* self, const caf::actor& to, const caf::actor& report,
                     int buffers) {
  auto left = std::make_shared<int>(buffers);
  auto sent = std::make_shared<int>(0);
  const auto began = clk::now();
  const auto bytes = shared_bytes::adopt(std::vector<std::byte>(4 << 20, std::byte{1}));
  for (; *sent < 4; ++*sent)
    self->send(to, ping_atom::value, bytes);
  return {[=](pong_atom, std::uint64_t) {
    if ((*sent)++ < buffers)
      self->send(to, ping_atom::value, bytes);
    if (--*left > 0)
      return;
    const std::chrono::duration<double, std::micro> took = clk::now() - began;
    self->send(report, static_cast<double>(buffers) * (4 << 20) / took.count());
    self->quit();
  }};
}

/// One-way messages of 64 B, answered every thousand; tells thousands a second.
caf::behavior ticker(caf::event_based_actor* self, const caf::actor& to, const caf::actor& report,
                     int thousands) {
  auto left = std::make_shared<int>(thousands);
  const auto began = clk::now();
  const auto burst = [=] {
    for (int i = 0; i < 1000; ++i)
      self->send(to, tick_atom::value, text(64, 'x'));
    self->send(to, done_atom::value);
  };
  burst();
  burst();
  return {[=](done_atom, std::uint64_t) {
    if (--*left > 1)
      return burst();
    if (*left > 0)
      return;
    const std::chrono::duration<double, std::milli> took = clk::now() - began;
    self->send(report, thousands * 1000 / took.count());
    self->quit();
  }};
}

struct row {
  double round_trip_us = 0;
  double rate_k = 0;
  double buffers_mb = 0;
  double idle_percent = 0;
};

double cpu_seconds() {
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  return static_cast<double>(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
         static_cast<double>(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
}

row measure(const std::string& kind) {
  server other{kind};
  config cfg{kind};
  caf::actor_system sys{cfg};
  caf::actor far;
  if (kind == "caf_io") {
    far = *sys.middleman().remote_actor("127.0.0.1", other.port);
  } else {
    const auto node = wire::of(sys).connect({"127.0.0.1", other.port});
    far = *wire::of(sys).lookup(*node, "echo");
  }
  caf::scoped_actor self{sys};
  const auto here = caf::actor_cast<caf::actor>(self);
  const auto value = [&] {
    double out = 0;
    self->receive([&](double x) { out = x; });
    return out;
  };
  row out;
  sys.spawn(pinger, far, here, 3000);
  out.round_trip_us = value();
  sys.spawn(ticker, far, here, 40);
  out.rate_k = value();
  sys.spawn(pusher, far, here, 100);
  out.buffers_mb = value();
  const auto before = cpu_seconds();
  std::this_thread::sleep_for(std::chrono::seconds{1});
  out.idle_percent = (cpu_seconds() - before) * 100;
  return out;
}

double median(std::vector<double> xs) {
  std::sort(xs.begin(), xs.end());
  return xs[xs.size() / 2];
}

} // namespace

int main(int argc, char** argv) {
  troupe::set_log_level(troupe::log_level::error);
  if (argc == 3 && std::string{argv[1]} == "--serve")
    return serve(argv[2]);
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 7;
  if (rounds < 1) {
    std::fprintf(stderr, "usage: bench_transport [ROUNDS]   (7 when not given)\n");
    return 2;
  }
  std::map<std::string, std::array<std::vector<double>, 4>> all;
  for (int i = 0; i < rounds; ++i) {
    for (const auto& kind : kinds) {
      const auto got = measure(kind);
      all[kind][0].push_back(got.round_trip_us);
      all[kind][1].push_back(got.rate_k);
      all[kind][2].push_back(got.buffers_mb);
      all[kind][3].push_back(got.idle_percent);
    }
  }
  const auto& base = all["caf_io"];
  std::printf("%-10s %26s %22s %24s %14s   medians of %d, ratio to caf_io (> 1 is better)\n", "",
              "64 B round trip, us", "64 B one way, k/s", "4 MiB buffers, MB/s", "% core, idle",
              rounds);
  for (const auto& kind : kinds) {
    const auto& of = all[kind];
    std::printf("%-10s %10.1f [%5.1f %6.1f] %5.2fx %13.0f %6.2fx %15.0f %6.2fx %14.2f\n",
                kind.c_str(), median(of[0]), *std::min_element(of[0].begin(), of[0].end()),
                *std::max_element(of[0].begin(), of[0].end()), median(base[0]) / median(of[0]),
                median(of[1]), median(of[1]) / median(base[1]), median(of[2]),
                median(of[2]) / median(base[2]), median(of[3]));
  }
}
