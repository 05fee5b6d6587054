#include "troupe/base/log.hpp"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace troupe {

namespace {

spdlog::level::level_enum to_spdlog(log_level level) noexcept {
  switch (level) {
  case log_level::trace:
    return spdlog::level::trace;
  case log_level::debug:
    return spdlog::level::debug;
  case log_level::info:
    return spdlog::level::info;
  case log_level::warn:
    return spdlog::level::warn;
  case log_level::error:
    return spdlog::level::err;
  case log_level::critical:
    return spdlog::level::critical;
  case log_level::off:
    return spdlog::level::off;
  }
  return spdlog::level::info;
}

/// The one logger of the process. It is never destroyed: threads may log until the very end.
spdlog::logger& logger() {
  static auto* instance = [] {
    auto sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
    auto* made = new spdlog::logger("troupe", std::move(sink));
    made->set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%l%$ %v");
    made->set_level(spdlog::level::info);
    made->flush_on(spdlog::level::info);
    return made;
  }();
  return *instance;
}

} // namespace

void set_log_level(log_level level) noexcept { logger().set_level(to_spdlog(level)); }

bool log_enabled(log_level level) noexcept { return logger().should_log(to_spdlog(level)); }

void write_log(log_level level, std::string_view text) noexcept {
  try {
    logger().log(to_spdlog(level), spdlog::string_view_t{text.data(), text.size()});
  } catch (...) {
    // A log line that cannot be written must not end what it describes.
  }
}

void flush_log() noexcept {
  try {
    logger().flush();
  } catch (...) {
    // As above.
  }
}

} // namespace troupe
