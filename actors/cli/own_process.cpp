#include "actors/cli/own_process.hpp"

#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <utility>

namespace troupe::cli {

result<child_process>
start_own_process(std::vector<std::string> arguments,
                  std::function<void(child_stream from, std::string_view line)> on_line) {
  arguments.insert(arguments.end(), {"--child-of", std::to_string(getpid())});
  return child_process::start({.program = "/proc/self/exe",
                               .arguments = std::move(arguments),
                               .on_line = std::move(on_line)});
}

bool end_with_parent(pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  return getppid() == parent;
}

} // namespace troupe::cli
