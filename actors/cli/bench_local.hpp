#pragma once

#include "actors/cli/bench_load.hpp"
#include "actors/cli/commands.hpp"

#include <memory>
#include <string>

namespace troupe::cli {

/// Starts the cluster of a file in this process and puts its router under load: token ids in,
/// token ids out. Waits until it is ready.
/// @errors as `troupe up`; not_found: the cluster does not serve `model`
[[nodiscard]] result<std::unique_ptr<load_target>>
start_local(const file_options& file, const std::string& model, std::uint32_t vocabulary);

} // namespace troupe::cli
