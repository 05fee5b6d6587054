#include "actors/backend/process_spawn.hpp"

#include "actors/backend/process_messages.hpp"
#include "troupe/actors/backends.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mutex>
#include <utility>
#include <vector>

namespace troupe::actors {

namespace {

/// How a host is started; see set_host_command().
struct host_command {
  std::mutex mutex;
  std::vector<std::string> words;
};

host_command& the_command() {
  static host_command command;
  return command;
}

std::vector<std::string> command_words() {
  auto& command = the_command();
  const std::lock_guard lock{command.mutex};
  return command.words;
}

/// What a child gets: its end of the pair, what it prints to, and nothing else of ours.
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
    // A terminal's Ctrl-C reaches the parent alone, which ends its children in their order.
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

  int start(pid_t& pid, const std::array<int, 3>& ends) {
    posix_spawn_file_actions_addopen(&files_, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files_, ends[0], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files_, ends[1], STDERR_FILENO);
    posix_spawn_file_actions_adddup2(&files_, ends[2], process_socket);
    posix_spawn_file_actions_addclosefrom_np(&files_, process_socket + 1);
    auto words = command_words();
    std::vector<char*> raw;
    for (auto& word : words)
      raw.push_back(word.data());
    raw.push_back(nullptr);
    return posix_spawn(&pid, raw.front(), &files_, &how_, raw.data(), environ);
  }

private:
  posix_spawn_file_actions_t files_{};
  posix_spawnattr_t how_{};
};

} // namespace

void set_host_command(std::vector<std::string> words) {
  auto& command = the_command();
  const std::lock_guard lock{command.mutex};
  command.words = std::move(words);
}

bool can_start_host() { return !command_words().empty(); }

int start_host(pid_t& pid, const std::array<int, 3>& ends) { return spawning{}.start(pid, ends); }

std::string describe_end(int status) {
  if (!WIFSIGNALED(status))
    return fmt::format("ended with status {}", WEXITSTATUS(status));
  const char* const name = sigdescr_np(WTERMSIG(status));
  return fmt::format("ended with signal {} ({})", WTERMSIG(status), name == nullptr ? "?" : name);
}

} // namespace troupe::actors
