#pragma once

#include "engine/exec/executor.hpp"

#include <memory>
#include <string>

namespace troupe::actors {

/// Makes an executor of a kind in a process of its own, as make_executor() does in this one: for a
/// device that this process can use no more, and whatever ends that process ends nothing else. It
/// is then spoiled(), and its next call says how the process ended. Exchanges of ranks pass through
/// this process. Several of them are independent.
/// @cost   a process with its device (0.3 s on a GPU), and three answers awaited a step, some 20 us
///         each, which a GPU does not wait for
/// @errors as make_executor(); unsupported: the program has not called set_host_command();
///         io_failure: no process is to be had
[[nodiscard]] result<std::unique_ptr<engine::executor>>
make_process_executor(const std::string& kind, const engine::executor_options& options);

} // namespace troupe::actors
