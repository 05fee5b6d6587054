#pragma once

#include "troupe/base/child_process.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace troupe::cli {

/// Starts this program once more as `troupe up ...`. It is asked to end when the calling thread
/// does, however that ends.
/// @param arguments the first is its name
/// @errors io_failure
[[nodiscard]] result<child_process>
start_own_process(std::vector<std::string> arguments,
                  std::function<void(child_stream from, std::string_view line)> on_line);

/// In such a process: has the system send SIGTERM when the parent ends.
/// @return false when it has ended already
[[nodiscard]] bool end_with_parent(pid_t parent);

} // namespace troupe::cli
