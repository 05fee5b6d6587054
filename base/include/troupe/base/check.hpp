#pragma once

#include <fmt/core.h>

#include <string_view>

namespace troupe::detail {

/// Logs what was violated and where, then aborts. Never returns.
[[noreturn]] void check_failed(std::string_view expression, std::string_view file, int line,
                               std::string_view note);

} // namespace troupe::detail

/// Aborts when `expression` is false: the answer to a programmer's error, always on.
/// What a client, a file or a peer can cause is an `error`, never a check.
/// Further arguments are a format string of fmt and its values.
#define TROUPE_CHECK(expression, ...)                                                              \
  do {                                                                                             \
    if (!(expression)) [[unlikely]]                                                                \
      ::troupe::detail::check_failed(#expression, __FILE__, __LINE__, ::fmt::format(__VA_ARGS__)); \
  } while (false)
