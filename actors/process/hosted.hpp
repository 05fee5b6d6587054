#pragma once

#include "troupe/base/child_process.hpp"

#include <functional>
#include <string_view>

/// Parts of Troupe in processes of their own, so that what ends such a process ends nothing else.
namespace troupe::actors {

/// What such a process is started for.
enum class hosted_part : char {
  /// A library of people's own (PROCESS: own).
  backend = 'b',
  /// The executor of a rank whose device this process can use no more.
  executor = 'e',
};

/// The descriptor of the child's end.
inline constexpr int hosted_socket = 3;

/// A process and this one's end of the way to it: a pair of sockets that nobody else can reach.
struct hosted_process {
  child_process child;
  /// Owned by whoever has the process.
  int socket = -1;
};

/// Whether the program has said how such a process is started (set_host_command()). Thread-safe.
[[nodiscard]] bool can_host();
/// Starts one. `on_line` takes each line that it prints, and pieces of very long ones.
/// @errors unsupported: !can_host(); io_failure. Thread-safe.
[[nodiscard]] result<hosted_process>
start_hosted(hosted_part what,
             std::function<void(child_stream from, std::string_view line)> on_line);

/// The lives of such processes, in their first threads.
[[noreturn]] void serve_backend();
[[noreturn]] void serve_executor();

} // namespace troupe::actors
