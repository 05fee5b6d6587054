#pragma once

#include "engine/text/jinja/builtin.hpp"

namespace troupe::engine::jinja {

/// strftime() in the C locale. @errors unsupported: a directive that is not known; limit_exceeded
[[nodiscard]] result<std::string> format_time(runtime& rt, std::string_view form,
                                              std::chrono::local_seconds when);

} // namespace troupe::engine::jinja
