#include "actors/cli/arguments.hpp"

#include <nlohmann/json.hpp>

#include <cmath>
#include <cstdlib>

namespace troupe::cli {

bool is_utf8(std::string_view text) {
  try {
    (void)nlohmann::json(text).dump();
    return true;
  } catch (const nlohmann::json::type_error&) {
    return false;
  }
}

std::string check_text(const std::string& argument) {
  return is_utf8(argument) ? std::string{} : "the text is not valid UTF-8; convert it with iconv";
}

std::string check_finite(const std::string& argument) {
  // What is no number at all is refused when it is converted.
  return std::isfinite(std::strtod(argument.c_str(), nullptr))
             ? std::string{}
             : argument + " is not a finite number";
}

} // namespace troupe::cli
