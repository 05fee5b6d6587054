// A network of nodes on one machine: a namespace for each, joined by a switch in this process.
//   netem --seed N NAME...     says "node NAME PID FD IP" for each, then "ready"
// Commands come on stdin, one a line, each answered by one line: "ok", a value or "error: ...".
//   cut A B | cut A    A and B hear nothing of each other; A and nobody do
//   deaf A B           A hears nothing of B, B hears A
//   heal               nothing is cut
//   delay 2ms | loss 0.01 | reorder 0.05       all ways
//   count A B          delivered, lost, swallowed and reordered frames from A to B
// It ends with its stdin, and with it all that it made.
#include "tests/cluster/netem/port.hpp"
#include "tests/cluster/netem/switch.hpp"

#include <fmt/core.h>

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <optional>
#include <sstream>

namespace {

using namespace netem;
using troupe::steady_clock;

constexpr std::size_t frame_bytes_max = 65536;
constexpr std::size_t ports_max = 200;

std::optional<double> number_of(const std::string& text) {
  double out = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), out);
  return code == std::errc{} && end == text.data() + text.size() ? std::optional{out}
                                                                 : std::nullopt;
}

std::optional<troupe::duration> duration_of(const std::string& text) {
  const auto unit = std::min(text.find_first_not_of("0123456789."), text.size());
  const auto count = number_of(text.substr(0, unit));
  const auto name = text.substr(unit);
  if (!count || (name != "us" && name != "ms" && name != "s"))
    return std::nullopt;
  const double ns = name == "us" ? 1e3 : name == "ms" ? 1e6 : 1e9;
  return std::chrono::nanoseconds{static_cast<std::int64_t>(*count * ns)};
}

class program {
public:
  program(std::vector<port> ports, std::uint64_t seed)
      : ports_{std::move(ports)}, switch_{ports_.size(), seed} {}

  void run();

private:
  [[nodiscard]] std::optional<std::size_t> find(const std::string& name) const;
  [[nodiscard]] std::string obey(const std::string& line);
  [[nodiscard]] std::string between(const std::string& what, std::size_t a,
                                    std::optional<std::size_t> b);
  template <class F>
  void each_way(F change) {
    for (std::size_t from = 0; from < ports_.size(); ++from)
      for (std::size_t to = 0; to < ports_.size(); ++to)
        change(switch_.way(from, to));
  }
  /// @return false when stdin has ended
  [[nodiscard]] bool read_commands();
  void read_frames(std::size_t from);

  std::vector<port> ports_;
  ether_switch switch_;
  std::string text_;
  frame buffer_;
};

std::optional<std::size_t> program::find(const std::string& name) const {
  for (std::size_t i = 0; i < ports_.size(); ++i)
    if (ports_[i].name == name)
      return i;
  return std::nullopt;
}

std::string program::between(const std::string& what, std::size_t a, std::optional<std::size_t> b) {
  if (what == "count" && b) {
    const auto& seen = switch_.count(a, *b);
    return fmt::format("{} {} {} {}", seen.delivered, seen.lost, seen.swallowed, seen.reordered);
  }
  if (what == "deaf" && b) {
    switch_.way(*b, a).cut = true;
    return "ok";
  }
  if (what != "cut")
    return "error: name two nodes";
  for (std::size_t other = 0; other < ports_.size(); ++other)
    if (!b || other == *b)
      switch_.way(a, other).cut = switch_.way(other, a).cut = true;
  return "ok";
}

std::string program::obey(const std::string& line) {
  std::istringstream words{line};
  std::string what, first, second;
  words >> what >> first >> second;
  if (what == "cut" || what == "deaf" || what == "count") {
    const auto a = find(first);
    const auto b = find(second);
    if (!a || (!second.empty() && !b))
      return fmt::format("error: no node '{}'", a ? second : first);
    return between(what, *a, b);
  }
  if (what == "heal") {
    each_way([](conditions& way) { way.cut = false; });
    return "ok";
  }
  if (what == "delay") {
    const auto delay = duration_of(first);
    if (!delay)
      return "error: a delay is a number with us, ms or s, e.g. 2ms";
    each_way([&](conditions& way) { way.delay = *delay; });
    return "ok";
  }
  const auto share = number_of(first);
  if ((what != "loss" && what != "reorder") || !share || *share < 0 || *share > 1)
    return fmt::format("error: '{}' is no command with its numbers in range", line);
  each_way([&](conditions& way) { (what == "loss" ? way.loss : way.reorder) = *share; });
  return "ok";
}

bool program::read_commands() {
  std::array<char, 4096> piece{};
  const auto got = ::read(STDIN_FILENO, piece.data(), piece.size());
  if (got <= 0)
    return false;
  text_.append(piece.data(), static_cast<std::size_t>(got));
  for (auto end = text_.find('\n'); end != std::string::npos; end = text_.find('\n')) {
    fmt::print("{}\n", obey(text_.substr(0, end)));
    text_.erase(0, end + 1);
  }
  std::fflush(stdout);
  return true;
}

void program::read_frames(std::size_t from) {
  constexpr int at_once = 64;
  for (int i = 0; i < at_once; ++i) {
    buffer_.resize(frame_bytes_max);
    const auto got = ::read(ports_[from].tap, buffer_.data(), buffer_.size());
    if (got <= 0)
      return;
    buffer_.resize(static_cast<std::size_t>(got));
    switch_.take(from, buffer_, steady_clock{}.now());
  }
}

void program::run() {
  std::vector<pollfd> waits{{STDIN_FILENO, POLLIN, 0}};
  for (const auto& each : ports_)
    waits.push_back({each.tap, POLLIN, 0});
  for (;;) {
    const auto due = switch_.due();
    const auto left = std::max(due - steady_clock{}.now(), troupe::duration{0});
    const timespec limit{std::chrono::duration_cast<std::chrono::seconds>(left).count(),
                         (left % std::chrono::seconds{1}).count()};
    const bool any = due != troupe::time_point::max();
    if (::ppoll(waits.data(), waits.size(), any ? &limit : nullptr, nullptr) < 0)
      return;
    if (waits[0].revents != 0 && !read_commands())
      return;
    for (std::size_t i = 0; i < ports_.size(); ++i)
      if (waits[i + 1].revents != 0)
        read_frames(i);
    switch_.release(steady_clock{}.now(), [this](std::size_t to, const frame& what) {
      // A full or closed interface loses frames, as a cable would.
      static_cast<void>(!::write(ports_[to].tap, what.data(), what.size()));
    });
  }
}

} // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  const auto seed = words.size() > 2 && words[0] == "--seed" ? number_of(words[1]) : std::nullopt;
  if (!seed || words.size() - 2 > ports_max) {
    fmt::print(stderr, "usage: netem --seed N NAME...   at most {} names\n", ports_max);
    return 2;
  }
  std::vector<port> ports;
  for (std::size_t i = 2; i < words.size(); ++i) {
    auto made = make_port(words[i], i - 2);
    if (!made) {
      fmt::print(stderr,
                 "netem: {}. Run it as root on a machine with /dev/net/tun, or set "
                 "TROUPE_WITHOUT_NETWORK_TESTS=1 to leave out the tests that need it.\n",
                 made.error().note);
      return 1;
    }
    fmt::print("node {} {} {} {}\n", made->name, ::getpid(), made->space, made->ip);
    ports.push_back(std::move(*made));
  }
  fmt::print("ready\n");
  std::fflush(stdout);
  program{std::move(ports), static_cast<std::uint64_t>(*seed)}.run();
}
