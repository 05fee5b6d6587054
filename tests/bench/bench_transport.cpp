// Actors of two processes talk: over the wire by shared memory and by tcp, and over caf::io, in one
// run; beside them the actors of one process, and ucx_perftest where it is installed.
//   bench_transport [ROUNDS]         medians of ROUNDS (7) interleaved rounds
//   bench_transport ROUNDS buffers   the rows of buffers alone, over shared memory and tcp
//   bench_transport ROUNDS small     the rows of small messages alone
//   bench_transport --serve KIND     the other process; started by the bench itself
#include "actors/protocol.hpp"
#include "tests/bench/ucx_perftest.hpp"
#include "troupe/base/log.hpp"
#include "troupe/transport/buffer_pool.hpp"
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
#include <optional>
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
using troupe::engine::step_batch;
using troupe::engine::step_result;

/// caf_io: caf::io over tcp. shm, tcp: the wire, spinning, the woken actor on the progress thread.
/// shm_pool: spinning, and actors run on CAF's pool. shm_sleep: the same without spinning. local:
/// both actors in one process.
const std::vector<std::string> kinds{"caf_io", "shm", "tcp", "shm_pool", "shm_sleep", "local"};

struct config : caf::actor_system_config {
  explicit config(const std::string& kind) {
    set("scheduler.policy", caf::atom("sharing"));
    set("scheduler.max-threads", 1);
    troupe::actors::add_messages(*this);
    if (kind == "local")
      return;
    if (kind == "caf_io") {
      load<caf::io::middleman>();
      add_message_type<shared_bytes>("troupe.shared_bytes");
      return;
    }
    load<wire>();
    caf::put(content, "wire.transports", std::string{kind == "tcp" ? "tcp" : "posix,cma,tcp"});
    caf::put(content, "wire.devices", std::string{"lo"});
    caf::put(content, "wire.run-inline", kind == "shm" || kind == "tcp");
    caf::put(content, "wire.spin-us", std::int64_t{kind == "shm_sleep" ? 0 : 50});
    caf::put(content, "wire.dead-after-ms", std::int64_t{30000});
  }
};

/// What a worker answers to a step: a token for each row that samples.
step_result answer_of(const step_batch& step) {
  step_result out;
  out.id = step.id;
  out.tokens.reserve(step.rows.size());
  for (const auto& row : step.rows)
    out.tokens.push_back({row.id, static_cast<troupe::token_id>(row.position)});
  return out;
}

/// A decode step of `sequences`, a sixteenth of which begin a new block.
step_batch step_of(std::uint64_t number, std::uint32_t sequences) {
  step_batch out;
  out.id = troupe::step_id{number};
  out.rows.resize(sequences);
  for (std::uint32_t i = 0; i < sequences; ++i) {
    auto& row = out.rows[i];
    row.id = troupe::request_id{1000 + i};
    row.position = 512 + i;
    row.tokens = 1;
    row.samples = true;
    if ((i + number) % 16 == 0)
      row.new_blocks.push_back(troupe::block_id{i});
  }
  return out;
}

caf::behavior echo(caf::event_based_actor* self, int) {
  auto ticks = std::make_shared<std::uint64_t>(0);
  auto buffers = std::make_shared<std::uint64_t>(0);
  return {
      [](ping_atom, text& x) { return caf::make_message(pong_atom::value, std::move(x)); },
      // Buffers are answered by so many, as a stream's receiver grants credit.
      [=](ping_atom, const shared_bytes&, std::uint64_t by) {
        if (++*buffers % by == 0)
          self->send(caf::actor_cast<caf::actor>(self->current_sender()), pong_atom::value, by);
      },
      [](const step_batch& step) { return answer_of(step); },
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

struct load {
  std::size_t bytes = 0;
  int buffers = 0;
  int under_way = 0;
  /// One answer for so many; a multiple of it is sent.
  int answered_by = 1;
};
constexpr load large{4 << 20, 100, 4};
constexpr load middling{64 << 10, 4000, 32, 8};

/// Keeps some buffers under way; tells bytes a microsecond, which is MB/s. As with ucx_perftest,
/// which sends one buffer of its allocator again and again too, the first tenth is not timed.
caf::behavior pusher(caf::event_based_actor* self, const caf::actor& to, const caf::actor& report,
                     load what) {
  const int warm_up = what.buffers / 10;
  auto arrived = std::make_shared<int>(0);
  auto sent = std::make_shared<int>(0);
  auto began = std::make_shared<clk::time_point>();
  auto buffer = troupe::net::buffer_pool{}.take(what.bytes);
  std::ranges::fill(buffer.bytes(), std::byte{1});
  const auto bytes = std::move(buffer).share();
  const auto by = static_cast<std::uint64_t>(what.answered_by);
  const auto fill = [=] {
    for (; *sent < *arrived + what.under_way && *sent < warm_up + what.buffers; ++*sent)
      self->send(to, ping_atom::value, bytes, by);
  };
  fill();
  return {[=](pong_atom, std::uint64_t more) {
    *arrived += static_cast<int>(more);
    fill();
    if (*arrived == warm_up)
      *began = clk::now();
    if (*arrived < warm_up + what.buffers)
      return;
    const std::chrono::duration<double, std::micro> took = clk::now() - *began;
    self->send(report, static_cast<double>(what.bytes) * what.buffers / took.count());
    self->quit();
  }};
}

/// Sends a step for each result, as a scheduler does; tells the time of a round trip in us.
caf::behavior stepper(caf::event_based_actor* self, const caf::actor& to, const caf::actor& report,
                      int rounds) {
  auto left = std::make_shared<int>(rounds + rounds / 10);
  auto took = std::make_shared<clk::duration>(0);
  auto sent_at = std::make_shared<clk::time_point>();
  // Making a step and reading its result are the scheduler's work and not timed.
  const auto next = [=] {
    auto step = step_of(static_cast<std::uint64_t>(*left), 256);
    *sent_at = clk::now();
    self->send(to, std::move(step));
  };
  next();
  return {[=](const step_result& result) {
    const auto now = clk::now();
    if (result.tokens.size() != 256)
      std::abort();
    if (*left <= rounds)
      *took += now - *sent_at;
    if (--*left > 0)
      return next();
    self->send(report, std::chrono::duration<double, std::micro>(*took).count() / rounds);
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

/// One figure of one kind in one round, in the order of `columns`.
enum column : std::size_t { round_trip, step, rate, buffers_64k, buffers_4m, idle, column_count };
struct column_facts {
  const char* name;
  bool less_is_better;
};
constexpr std::array<column_facts, column_count> columns{{{"64 B round trip, us", true},
                                                          {"step of 256 and back, us", true},
                                                          {"64 B one way, k/s", false},
                                                          {"64 KiB buffers, MB/s", false},
                                                          {"4 MiB buffers, MB/s", false},
                                                          {"% of a core, idle", true}}};
using row = std::array<double, column_count>;

/// Which rows are wanted.
enum class subset : std::uint8_t { all, small, buffers };

double cpu_seconds() {
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  return static_cast<double>(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
         static_cast<double>(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
}

caf::actor find(caf::actor_system& sys, const std::string& kind, std::uint16_t port) {
  if (kind == "caf_io")
    return *sys.middleman().remote_actor("127.0.0.1", port);
  const auto node = wire::of(sys).connect({"127.0.0.1", port});
  return *wire::of(sys).lookup(*node, "echo");
}

row measure(const std::string& kind, subset wanted) {
  std::optional<server> other;
  if (kind != "local")
    other.emplace(kind);
  config cfg{kind};
  caf::actor_system sys{cfg};
  const auto far = other ? find(sys, kind, other->port) : sys.spawn(echo, 0);
  caf::scoped_actor self{sys};
  const auto here = caf::actor_cast<caf::actor>(self);
  const auto value = [&] {
    double out = 0;
    self->receive([&](double x) { out = x; });
    return out;
  };
  row out{};
  if (wanted != subset::buffers) {
    // Long enough that the threads' first wake-ups do not count.
    sys.spawn(pinger, far, here, 20'000);
    out[round_trip] = value();
    sys.spawn(stepper, far, here, 1000);
    out[step] = value();
    sys.spawn(ticker, far, here, 40);
    out[rate] = value();
  }
  if (wanted != subset::small) {
    sys.spawn(pusher, far, here, middling);
    out[buffers_64k] = value();
    sys.spawn(pusher, far, here, large);
    out[buffers_4m] = value();
  }
  if (wanted == subset::all) {
    const auto before = cpu_seconds();
    std::this_thread::sleep_for(std::chrono::seconds{1});
    out[idle] = (cpu_seconds() - before) * 100;
  }
  if (!other)
    caf::anon_send_exit(far, caf::exit_reason::kill);
  return out;
}

/// ucx_perftest's figures over the lanes of `kind`: 0 where there is none.
row measure_peer(const std::string& kind) {
  const std::string lanes = kind == "tcp" ? "tcp" : "posix,cma,tcp";
  row out{};
  out[buffers_64k] = troupe::bench::ucx_megabytes(lanes, middling.bytes, middling.buffers);
  out[buffers_4m] = troupe::bench::ucx_megabytes(lanes, large.bytes, large.buffers);
  return out;
}

using figures = std::map<std::string, std::vector<row>>;

std::vector<double> sorted(const figures& all, const std::string& kind, column which) {
  std::vector<double> out;
  for (const auto& row : all.at(kind))
    out.push_back(row[which]);
  std::sort(out.begin(), out.end());
  return out;
}

double median(const figures& all, const std::string& kind, column which) {
  const auto of = sorted(all, kind, which);
  return of[of.size() / 2];
}

void print_column(column which, const figures& all) {
  const auto& facts = columns[which];
  if (std::none_of(all.begin(), all.end(),
                   [&](const auto& kind) { return kind.second[0][which] > 0; }))
    return;
  std::printf("%s\n", facts.name);
  const auto base = all.contains("caf_io") ? median(all, "caf_io", which) : 0;
  for (const auto& [kind, rows] : all) {
    const auto of = sorted(all, kind, which);
    const auto middle = of[of.size() / 2];
    if (middle == 0)
      continue;
    std::printf("  %-10s %10.2f [%8.2f %8.2f]", kind.c_str(), middle, of.front(), of.back());
    if (base > 0)
      std::printf(" %6.2fx", facts.less_is_better ? base / middle : middle / base);
    if (which == step)
      std::printf("  %+.1f us", middle - median(all, "local", which));
    const auto peer = all.contains("ucx_" + kind) ? median(all, "ucx_" + kind, which) : 0;
    if (peer > 0)
      std::printf("  %.2f of ucx_perftest", middle / peer);
    std::printf("\n");
  }
}

} // namespace

int main(int argc, char** argv) {
  troupe::set_log_level(troupe::log_level::error);
  if (argc == 3 && std::string{argv[1]} == "--serve")
    return serve(argv[2]);
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 7;
  const std::string named = argc > 2 ? argv[2] : "";
  const auto wanted = named == "buffers" ? subset::buffers
                      : named == "small" ? subset::small
                                         : subset::all;
  if (rounds < 1 || argc > (wanted == subset::all ? 2 : 3)) {
    std::fprintf(stderr, "usage: bench_transport [ROUNDS [buffers|small]]   (7 when not given)\n");
    return 2;
  }
  std::map<std::string, std::vector<row>> all;
  for (int i = 0; i < rounds; ++i) {
    for (const auto& kind : kinds) {
      if (wanted == subset::buffers && kind != "shm" && kind != "tcp" && kind != "shm_pool")
        continue;
      all[kind].push_back(measure(kind, wanted));
      if (wanted != subset::small && (kind == "shm" || kind == "tcp"))
        all["ucx_" + kind].push_back(measure_peer(kind));
    }
  }
  std::printf("medians of %d [least, most], ratio to caf_io (above 1 is better); buffers also "
              "to ucx_perftest, steps less those of one process\n",
              rounds);
  for (std::size_t c = 0; c < column_count; ++c)
    print_column(static_cast<column>(c), all);
}
