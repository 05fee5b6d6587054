#include "actors/process/hosted.hpp"

#include "troupe/actors/backends.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace troupe::actors {

namespace {

constexpr std::size_t longest_line = 4000;

struct guarded_words {
  std::mutex mutex;
  std::vector<std::string> words;
};

guarded_words& the_command() {
  static guarded_words command;
  return command;
}

std::vector<std::string> host_command() {
  auto& command = the_command();
  const std::lock_guard lock{command.mutex};
  return command.words;
}

result<hosted_process> no_process() {
  return fail(errc::io_failure,
              fmt::format("no process of its own can be started: {}", std::strerror(errno)));
}

} // namespace

void set_host_command(std::vector<std::string> words) {
  auto& command = the_command();
  const std::lock_guard lock{command.mutex};
  command.words = std::move(words);
}

bool can_host() { return !host_command().empty(); }

result<hosted_process>
start_hosted(hosted_part what,
             std::function<void(child_stream from, std::string_view line)> on_line) {
  const auto words = host_command();
  if (words.empty())
    return fail(errc::unsupported, "this program has not said how it hosts a part of it in a "
                                   "process of its own: it must call set_host_command()");
  std::array<int, 2> pair{-1, -1};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0)
    return no_process();
  const auto role = static_cast<char>(what);
  const bool told = ::send(pair[0], &role, 1, MSG_NOSIGNAL) == 1;
  auto child = !told ? result<child_process>{fail(no_process().error())}
                     : child_process::start({.program = words.front(),
                                             .arguments = words,
                                             .socket = pair[1],
                                             .on_line = std::move(on_line),
                                             .longest_line = longest_line});
  ::close(pair[1]);
  if (child)
    return hosted_process{std::move(*child), pair[0]};
  ::close(pair[0]);
  return fail(child.error());
}

int host_process() {
  // A crash is to be seen for what it is, also where a sanitizer would catch it.
  for (const int crash : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT})
    std::signal(crash, SIG_DFL);
  std::signal(SIGPIPE, SIG_IGN);
  char role = 0;
  if (::recv(hosted_socket, &role, 1, 0) != 1) {
    std::fputs("troupe: this command is for troupe itself, which starts it for models with the "
               "parameter PROCESS, and behind an error of a GPU\n",
               stderr);
    return 2;
  }
  // A child of a library's must not keep the connection open.
  fcntl(hosted_socket, F_SETFD, FD_CLOEXEC);
  if (role == static_cast<char>(hosted_part::executor))
    serve_executor();
  serve_backend();
}

} // namespace troupe::actors
