#pragma once

#include "troupe/config/backend_needs.hpp"

#include <string>
#include <vector>

namespace troupe::actors {

/// Says how a process is started that hosts a part of this program: a backend with the parameter
/// PROCESS "own", or the executor of a GPU that an error has spoiled for this process. A program
/// and its arguments, which must call host_process() and nothing else. None by default: such a
/// model then does not load, and such a GPU serves again when the program is started again. Call it
/// once, before anything is loaded.
void set_host_command(std::vector<std::string> words);
/// The whole life of such a process. @return the exit status
[[nodiscard]] int host_process();

/// Opens the library of a backend that is no part of the program, and asks it what its model needs;
/// for config::build_capabilities::ask_backend.
[[nodiscard]] result<config::backend_needs> ask_backend(const config::backend_question& question);

} // namespace troupe::actors
