#pragma once

#include <fmt/core.h>

#include <cstdint>
#include <string_view>
#include <utility>

namespace troupe {

enum class log_level : std::uint8_t { trace, debug, info, warn, error, critical, off };

/// Sets the least level that is written. The log goes to standard error, one line per call,
/// as "2026-11-22T10:00:00.123 info text". Thread-safe.
void set_log_level(log_level level) noexcept;
[[nodiscard]] bool log_enabled(log_level level) noexcept;

/// Writes one line when `level` is enabled. Thread-safe; never throws.
void write_log(log_level level, std::string_view text) noexcept;
/// Writes out what is buffered; called before an abort.
void flush_log() noexcept;

#define TROUPE_LOG_FUNCTION(name, level)                                                           \
  template <class... Ts>                                                                           \
  void name(fmt::format_string<Ts...> format, Ts&&... xs) {                                        \
    if (log_enabled(level))                                                                        \
      write_log(level, fmt::format(format, std::forward<Ts>(xs)...));                              \
  }
TROUPE_LOG_FUNCTION(log_trace, log_level::trace)
TROUPE_LOG_FUNCTION(log_debug, log_level::debug)
TROUPE_LOG_FUNCTION(log_info, log_level::info)
TROUPE_LOG_FUNCTION(log_warn, log_level::warn)
TROUPE_LOG_FUNCTION(log_error, log_level::error)
TROUPE_LOG_FUNCTION(log_critical, log_level::critical)
#undef TROUPE_LOG_FUNCTION

} // namespace troupe
