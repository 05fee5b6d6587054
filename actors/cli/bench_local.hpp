#pragma once

#include "actors/cli/bench_load.hpp"
#include "actors/cli/commands.hpp"

#include <memory>
#include <string>

namespace troupe::cli {

/// Starts the cluster of a file in this process and puts its router under load: token ids in,
/// token ids out. Waits until it is ready. Limits of requests that wait are raised to `open`, the
/// most that the loads keep open at a time.
/// @errors as `troupe up`; not_found: the cluster does not serve `model`
[[nodiscard]] result<std::unique_ptr<load_target>> start_local(const file_options& file,
                                                               const std::string& model,
                                                               std::uint32_t vocabulary,
                                                               std::uint32_t open);

} // namespace troupe::cli
