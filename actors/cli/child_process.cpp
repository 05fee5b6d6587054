#include "actors/cli/child_process.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

namespace troupe::cli {

namespace {

constexpr auto own_program = "/proc/self/exe";

/// Writes all of it, to a terminal or a pipe that may be slow. What cannot be written is lost.
void write_all(int to, std::string_view text) {
  while (!text.empty()) {
    const auto written = ::write(to, text.data(), text.size());
    if (written < 0 && errno == EINTR)
      continue;
    if (written <= 0)
      return;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

/// In the child, where only async-signal-safe calls are allowed.
[[noreturn]] void become(char* const* arguments, int out, int err, pid_t parent) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  // A terminal's Ctrl-C reaches the launcher alone, which ends the nodes in their order.
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  constexpr int failed_to_start = 127;
  if (getppid() != parent)
    _exit(failed_to_start);
  dup2(out, STDOUT_FILENO);
  dup2(err, STDERR_FILENO);
  execv(own_program, arguments);
  _exit(failed_to_start);
}

} // namespace

std::string describe_status(int status) {
  if (WIFSIGNALED(status))
    return fmt::format("signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
  return fmt::format("status {}", WEXITSTATUS(status));
}

result<child_process> child_process::start(const std::string& name,
                                           const std::vector<std::string>& arguments,
                                           line_taker taker) {
  child_process made;
  made.name_ = name;
  made.taker_ = std::move(taker);
  std::array<int, 2> writers{-1, -1};
  for (std::size_t i = 0; i < 2; ++i) {
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) != 0)
      return fail(errc::io_failure, fmt::format("no pipe: {}", std::strerror(errno)));
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    made.streams_[i] = {ends[0], i == 0 ? STDOUT_FILENO : STDERR_FILENO, {}};
    writers[i] = ends[1];
  }
  std::vector<char*> raw;
  for (const auto& argument : arguments)
    raw.push_back(const_cast<char*>(argument.c_str()));
  raw.push_back(nullptr);
  const auto parent = getpid();
  made.pid_ = fork();
  if (made.pid_ == 0)
    become(raw.data(), writers[0], writers[1], parent);
  for (const int writer : writers)
    ::close(writer);
  if (made.pid_ < 0)
    return fail(errc::io_failure, fmt::format("no process: {}", std::strerror(errno)));
  return made;
}

child_process::child_process(child_process&& other) noexcept { *this = std::move(other); }

child_process& child_process::operator=(child_process&& other) noexcept {
  if (this != &other) {
    close();
    name_ = std::move(other.name_);
    taker_ = std::move(other.taker_);
    pid_ = std::exchange(other.pid_, 0);
    streams_ = std::exchange(other.streams_, {});
  }
  return *this;
}

child_process::~child_process() { close(); }

void child_process::close() {
  for (auto& one : streams_)
    if (one.from >= 0)
      ::close(std::exchange(one.from, -1));
}

void child_process::add_to(std::vector<pollfd>& all) const {
  for (const auto& one : streams_)
    if (one.from >= 0)
      all.push_back({one.from, POLLIN, 0});
}

void child_process::hand_on(int to, std::string line) const {
  if (taker_)
    return taker_(std::move(line));
  write_all(to, fmt::format("{} | {}\n", name_, line));
}

void child_process::print(stream& which, bool all) {
  std::size_t end = 0;
  while ((end = which.line.find('\n')) != std::string::npos) {
    hand_on(which.to, which.line.substr(0, end));
    which.line.erase(0, end + 1);
  }
  if (all && !which.line.empty())
    hand_on(which.to, std::exchange(which.line, {}));
}

void child_process::forward() {
  std::array<char, 4096> piece{};
  for (auto& one : streams_) {
    if (one.from < 0)
      continue;
    ssize_t got = 0;
    while ((got = ::read(one.from, piece.data(), piece.size())) > 0) {
      one.line.append(piece.data(), static_cast<std::size_t>(got));
      print(one, false);
    }
    if (got == 0) {
      print(one, true);
      ::close(std::exchange(one.from, -1));
    }
  }
}

void child_process::signal(int number) const {
  if (pid_ > 0)
    ::kill(pid_, number);
}

std::optional<int> child_process::ended() {
  int status = 0;
  if (pid_ <= 0 || waitpid(pid_, &status, WNOHANG) != pid_)
    return std::nullopt;
  pid_ = 0;
  forward();
  for (auto& one : streams_)
    print(one, true);
  close();
  return status;
}

} // namespace troupe::cli
