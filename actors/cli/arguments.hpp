#pragma once

#include <string>
#include <string_view>

namespace troupe::cli {

/// Whether `text` may stand in JSON.
[[nodiscard]] bool is_utf8(std::string_view text);

/// Checks of one argument: the sentence about what is wrong with it, or nothing.
[[nodiscard]] std::string check_text(const std::string& argument);
[[nodiscard]] std::string check_finite(const std::string& argument);

} // namespace troupe::cli
