#include "troupe/base/child_process.hpp"

#include "troupe/base/check.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

namespace troupe {

namespace {

/// Where a child finds its socket.
constexpr int child_socket = 3;

/// What posix_spawn is told, which shares the memory of a large process instead of copying its
/// tables.
class spawning {
public:
  spawning() {
    posix_spawn_file_actions_init(&files_);
    posix_spawnattr_init(&how_);
    sigset_t none;
    sigset_t all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&how_, &none);
    posix_spawnattr_setsigdefault(&how_, &all);
    posix_spawnattr_setpgroup(&how_, 0);
    posix_spawnattr_setflags(&how_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                        POSIX_SPAWN_SETPGROUP);
  }
  ~spawning() {
    posix_spawn_file_actions_destroy(&files_);
    posix_spawnattr_destroy(&how_);
  }
  spawning(const spawning&) = delete;
  spawning& operator=(const spawning&) = delete;

  /// @return 0 or errno
  int start(pid_t& pid, const child_options& what, const std::array<int, 2>& writers) {
    posix_spawn_file_actions_addopen(&files_, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files_, writers[0], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files_, writers[1], STDERR_FILENO);
    int free = child_socket;
    if (what.socket >= 0)
      posix_spawn_file_actions_adddup2(&files_, what.socket, free++);
    posix_spawn_file_actions_addclosefrom_np(&files_, free);
    auto words = what.arguments;
    std::vector<char*> raw;
    for (auto& word : words)
      raw.push_back(word.data());
    raw.push_back(nullptr);
    return posix_spawn(&pid, what.program.c_str(), &files_, &how_, raw.data(), environ);
  }

private:
  posix_spawn_file_actions_t files_{};
  posix_spawnattr_t how_{};
};

} // namespace

result<child_process> child_process::start(child_options options) {
  child_process made;
  made.options_ = std::move(options);
  std::array<int, 2> writers{-1, -1};
  int why = 0;
  for (std::size_t i = 0; i < writers.size() && why == 0; ++i) {
    std::array<int, 2> ends{-1, -1};
    why = pipe2(ends.data(), O_CLOEXEC) == 0 ? 0 : errno;
    made.streams_[i].from = ends[0];
    writers[i] = ends[1];
  }
  if (why == 0)
    why = spawning{}.start(made.pid_, made.options_, writers);
  for (const int writer : writers)
    if (writer >= 0)
      ::close(writer);
  if (why != 0) {
    made.pid_ = 0;
    return fail(errc::io_failure,
                fmt::format("{} cannot be started: {}", made.options_.program, std::strerror(why)));
  }
  for (const auto& one : made.streams_)
    fcntl(one.from, F_SETFL, O_NONBLOCK);
  return made;
}

child_process::child_process(child_process&& other) noexcept { *this = std::move(other); }

child_process& child_process::operator=(child_process&& other) noexcept {
  if (this != &other) {
    close_streams();
    options_ = std::move(other.options_);
    pid_ = std::exchange(other.pid_, 0);
    streams_ = std::exchange(other.streams_, {});
  }
  return *this;
}

child_process::~child_process() { close_streams(); }

void child_process::close_streams() {
  for (auto& one : streams_)
    if (one.from >= 0)
      ::close(std::exchange(one.from, -1));
}

void child_process::add_to(std::vector<pollfd>& all) const {
  for (const auto& one : streams_)
    if (one.from >= 0)
      all.push_back({one.from, POLLIN, 0});
}

/// Hands over whole lines, and of one that is too long what there is.
void child_process::take_lines(child_stream which) {
  auto& line = streams_[static_cast<std::size_t>(which)].line;
  const std::string_view text{line};
  std::size_t begin = 0;
  for (auto end = text.find('\n'); end != std::string_view::npos; end = text.find('\n', begin)) {
    options_.on_line(which, text.substr(begin, end - begin));
    begin = end + 1;
  }
  if (text.size() - begin > options_.longest_line) {
    options_.on_line(which, text.substr(begin));
    begin = text.size();
  }
  line.erase(0, begin);
}

void child_process::take_output() {
  std::array<char, 4096> piece{};
  for (const auto which : {child_stream::output, child_stream::error}) {
    auto& one = streams_[static_cast<std::size_t>(which)];
    ssize_t got = 0;
    while (one.from >= 0 && (got = ::read(one.from, piece.data(), piece.size())) > 0) {
      one.line.append(piece.data(), static_cast<std::size_t>(got));
      take_lines(which);
    }
    if (one.from < 0 || got != 0)
      continue;
    ::close(std::exchange(one.from, -1));
    if (!one.line.empty())
      options_.on_line(which, std::exchange(one.line, {}));
  }
}

void child_process::signal(int number) const {
  if (pid_ > 0)
    ::kill(pid_, number);
}

void child_process::kill_group() const {
  if (pid_ > 0 && ::kill(-pid_, SIGKILL) != 0)
    ::kill(pid_, SIGKILL);
}

bool child_process::has_ended() const {
  siginfo_t ended{};
  return pid_ > 0 &&
         waitid(P_PID, static_cast<id_t>(pid_), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         ended.si_pid == pid_;
}

bool child_process::has_ended_within(std::chrono::milliseconds limit) const {
  constexpr std::chrono::milliseconds between_looks{2};
  const auto until = std::chrono::steady_clock::now() + limit;
  while (!has_ended() && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(between_looks);
  return has_ended();
}

int child_process::reap() {
  TROUPE_CHECK(pid_ > 0, "no child to wait for");
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = 0;
  take_output();
  // What it has started may hold its streams open; nobody reads on.
  for (const auto which : {child_stream::output, child_stream::error})
    if (auto& line = streams_[static_cast<std::size_t>(which)].line; !line.empty())
      options_.on_line(which, std::exchange(line, {}));
  close_streams();
  return status;
}

std::optional<int> child_process::ended() {
  return has_ended() ? std::optional{reap()} : std::nullopt;
}

std::string describe_exit(int status) {
  if (!WIFSIGNALED(status))
    return fmt::format("status {}", WEXITSTATUS(status));
  const char* const name = sigdescr_np(WTERMSIG(status));
  return fmt::format("signal {} ({})", WTERMSIG(status), name == nullptr ? "?" : name);
}

} // namespace troupe
