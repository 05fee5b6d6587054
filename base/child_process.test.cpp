#include "troupe/base/child_process.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <csignal>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace troupe;

namespace {

/// A shell that does `script`, and the lines that it printed: "out:..." or "err:...".
struct shell {
  std::vector<std::string> lines;
  child_process child;

  explicit shell(const std::string& script, int socket = -1, std::size_t longest_line = 1U << 20U) {
    auto started = child_process::start(
        {.program = "/bin/sh",
         .arguments = {"sh", "-c", script},
         .socket = socket,
         .on_line =
             [this](child_stream from, std::string_view line) {
               lines.push_back((from == child_stream::output ? "out:" : "err:") +
                               std::string{line});
             },
         .longest_line = longest_line});
    REQUIRE(started);
    child = std::move(*started);
  }
  shell(const shell&) = delete;
  shell& operator=(const shell&) = delete;

  /// Reads until it has ended.
  int run() {
    while (true) {
      std::vector<pollfd> all;
      child.add_to(all);
      ::poll(all.data(), all.size(), 10);
      child.take_output();
      if (const auto status = child.ended())
        return *status;
    }
  }
};

using lines = std::vector<std::string>;

} // namespace

TEST_CASE("what a child prints comes by lines, with the last one that has no end") {
  shell one{"printf 'a\\nb\\n\\nc'; printf 'x\\ny' >&2; exit 3"};
  CHECK(one.child.running());
  const auto status = one.run();
  CHECK(describe_exit(status) == "status 3");
  CHECK_FALSE(one.child.running());
  CHECK_FALSE(one.child.ended());
  lines out;
  lines err;
  for (const auto& line : one.lines)
    (line.starts_with("out:") ? out : err).push_back(line);
  CHECK(out == lines{"out:a", "out:b", "out:", "out:c"});
  CHECK(err == lines{"err:x", "err:y"});
}

TEST_CASE("a line that is too long comes in pieces, and much output comes whole") {
  shell one{"head -c 100000 /dev/zero | tr '\\0' x; echo; echo short", -1, 4000};
  CHECK(describe_exit(one.run()) == "status 0");
  REQUIRE(one.lines.size() > 10);
  std::size_t count = 0;
  for (std::size_t i = 0; i + 1 < one.lines.size(); ++i) {
    CHECK(one.lines[i].size() <= 4 + 8192);
    count += one.lines[i].size() - 4;
  }
  CHECK(count == 100000);
  CHECK(one.lines.back() == "out:short");
}

TEST_CASE("a child that a signal ends says which, and its group goes with it") {
  shell one{"sleep 1000 & echo $!; wait"};
  while (one.lines.empty())
    one.child.take_output();
  const auto grandchild = static_cast<pid_t>(std::stol(one.lines.front().substr(4)));
  CHECK(::kill(grandchild, 0) == 0);
  CHECK_FALSE(one.child.has_ended());
  CHECK_FALSE(one.child.ended());
  one.child.signal(SIGTERM);
  while (!one.child.has_ended())
    ::usleep(1000);
  CHECK(one.child.has_ended());
  one.child.kill_group();
  const auto status = one.child.reap();
  CHECK(describe_exit(status) == "signal 15 (Terminated)");
  CHECK(WIFSIGNALED(status));
  // Its new parent, whoever that is, may leave it a zombie: then it cannot print any more either.
  CHECK(one.lines.size() == 1);
  one.child.signal(SIGKILL);
  one.child.kill_group();
}

TEST_CASE("a child has its socket, an empty input, signals by default and nothing else") {
  std::array<int, 2> pair{};
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) == 0);
  const int stray = ::dup(pair[0]);
  REQUIRE(::fcntl(stray, F_GETFD) == 0);
  ::signal(SIGUSR1, SIG_IGN);
  shell one{
      "cat; printf hello >&3; ls /proc/self/fd | tr '\\n' ' '; echo; grep SigIgn /proc/self/status",
      pair[1]};
  ::signal(SIGUSR1, SIG_DFL);
  ::close(pair[1]);
  CHECK(describe_exit(one.run()) == "status 0");
  std::array<char, 16> got{};
  CHECK(::read(pair[0], got.data(), got.size()) == 5);
  CHECK(std::string_view{got.data()} == "hello");
  // 4 is the folder that ls reads.
  REQUIRE(one.lines.size() == 2);
  CHECK(one.lines[0] == "out:0 1 2 3 4 ");
  // The C library ignores signals of its own in a child; these are not among them.
  const auto ignored = std::stoull(one.lines[1].substr(one.lines[1].find('\t') + 1), nullptr, 16);
  CHECK((ignored & 0x7fff'ffff) == 0);
  ::close(stray);
  ::close(pair[0]);
}

TEST_CASE("a program that is not there is an error with its name") {
  const auto none = child_process::start({.program = "/no/such/program",
                                          .arguments = {"program"},
                                          .on_line = [](child_stream, std::string_view) {}});
  REQUIRE_FALSE(none);
  CHECK(none.error().code == errc::io_failure);
  CHECK(none.error().note.find("/no/such/program cannot be started: No such file") == 0);
}

TEST_CASE("a child moves to another object and outlives both") {
  shell one{"sleep 1000"};
  child_process other = std::move(one.child);
  CHECK_FALSE(one.child.running());
  CHECK(other.running());
  other.kill_group();
  CHECK(describe_exit(other.reap()) == "signal 9 (Killed)");
}
