#pragma once

#include "actors/edge/kserve/failure.hpp"

#include <string>
#include <string_view>

namespace troupe::actors::kserve {

/// What /v2/logging shows: log_info, log_warning, log_error and log_verbose_level are Troupe's own
/// log level in Triton's words (one level includes all above it); log_file and log_format are
/// fixed.
[[nodiscard]] std::string logging_json();
/// Takes a JSON object of changes and answers with all settings.
/// @errors invalid_arg: an unknown name or a wrong type; unsupported: another file or format
[[nodiscard]] outcome<std::string> change_logging(std::string_view changes);

/// What /v2/trace/setting shows: tracing is off and stays so.
[[nodiscard]] std::string trace_json();
/// Takes what changes nothing and refuses all else.
[[nodiscard]] outcome<std::string> change_trace(std::string_view changes);

} // namespace troupe::actors::kserve
