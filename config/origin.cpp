#include "troupe/config/origin.hpp"

#include <fmt/core.h>

#include "troupe/base/check.hpp"

namespace troupe::config {

std::string to_string(const origin& from) {
  const auto with_text = [&](std::string_view word) {
    return from.text.empty() ? std::string{word} : fmt::format("{} ({})", word, from.text);
  };
  switch (from.kind) {
  case origin_kind::default_value:
    return with_text("default");
  case origin_kind::user_file:
  case origin_kind::model_file:
    return from.line == 0 ? from.file : fmt::format("{}:{}", from.file, from.line);
  case origin_kind::environment:
    return fmt::format("environment {}", from.text);
  case origin_kind::command_line:
    return fmt::format("command line {}", from.text);
  case origin_kind::auto_completion:
    return with_text("auto-completion");
  case origin_kind::measured:
    return with_text("measured");
  }
  TROUPE_CHECK(false, "origin of kind {}", static_cast<int>(from.kind));
}

bool is_explicit(const origin& from) noexcept {
  return from.kind == origin_kind::user_file || from.kind == origin_kind::environment ||
         from.kind == origin_kind::command_line;
}

} // namespace troupe::config
