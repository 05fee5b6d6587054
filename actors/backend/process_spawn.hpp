#pragma once

#include <sys/types.h>

#include <array>
#include <string>

namespace troupe::actors {

/// Whether the program has called set_host_command().
[[nodiscard]] bool can_start_host();
/// Starts a child that hosts a backend: `ends` become its standard output, its standard error and
/// its socket; nothing else of this process stays open in it. The system kills it when the calling
/// thread ends. @return 0, or errno
[[nodiscard]] int start_host(pid_t& pid, const std::array<int, 3>& ends);
/// "ended with status 1" or "ended with signal 9 (Killed)", of waitpid's status.
[[nodiscard]] std::string describe_end(int status);

} // namespace troupe::actors
