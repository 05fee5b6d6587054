#pragma once

#include "actors/cli/bench_load.hpp"
#include "actors/cli/commands.hpp"

#include <memory>
#include <string>

namespace troupe::cli {

/// A server that speaks OpenAI's completions, be it Troupe or another: streams, one connection for
/// each request at a time.
/// @errors as choose_model()
[[nodiscard]] result<std::unique_ptr<load_target>>
open_server(const client_options& server, const std::string& model, std::uint32_t vocabulary);

} // namespace troupe::cli
