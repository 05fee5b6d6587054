#include "actors/edge/kserve/settings.hpp"

#include "actors/edge/json_body.hpp"
#include "troupe/base/log.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

namespace troupe::actors::kserve {

namespace {

using json = nlohmann::ordered_json;

json logging() {
  const unsigned verbose = log_enabled(log_level::trace)   ? 2
                           : log_enabled(log_level::debug) ? 1
                                                           : 0;
  return {{"log_file", ""},
          {"log_info", log_enabled(log_level::info)},
          {"log_warning", log_enabled(log_level::warn)},
          {"log_error", log_enabled(log_level::error)},
          {"log_verbose_level", verbose},
          {"log_format", "default"}};
}

json tracing() {
  return {{"trace_level", {"OFF"}}, {"trace_rate", "1000"}, {"trace_count", "-1"},
          {"log_frequency", "0"},   {"trace_file", ""},     {"trace_mode", "triton"}};
}

log_level level_of(const json& s) {
  if (s["log_verbose_level"].get<std::int64_t>() > 1)
    return log_level::trace;
  if (s["log_verbose_level"].get<std::int64_t>() > 0)
    return log_level::debug;
  if (s["log_info"].get<bool>())
    return log_level::info;
  if (s["log_warning"].get<bool>())
    return log_level::warn;
  return s["log_error"].get<bool>() ? log_level::error : log_level::critical;
}

bool same_kind(const nlohmann::json& value, const json& now) {
  return (value.is_number_integer() && now.is_number_integer() && value.get<double>() >= 0) ||
         (value.is_boolean() && now.is_boolean()) || (value.is_string() && now.is_string());
}

/// A trace value as text: clients send numbers and words, and a list of one for the level.
std::string word_of(const nlohmann::json& v) {
  if (v.is_array() && v.size() == 1)
    return word_of(v[0]);
  return v.is_string() ? v.get<std::string>() : v.dump();
}

} // namespace

std::string logging_json() { return logging().dump(); }

outcome<std::string> change_logging(std::string_view changes) {
  const auto body = parse_body(changes);
  if (!body)
    return refuse(body.error().message);
  auto all = logging();
  for (const auto& [name, value] : body->items()) {
    const auto known = all.find(name);
    if (known == all.end())
      return refuse(fmt::format("unknown log setting '{}'; the settings are log_info, log_warning, "
                                "log_error, log_verbose_level, log_file and log_format",
                                name.substr(0, 64)));
    if (!same_kind(value, *known))
      return refuse(fmt::format("log setting '{}' has the wrong type or range", name));
    const bool fixed = name == "log_file" || name == "log_format";
    if (fixed && value.get<std::string>() != known->get<std::string>())
      return refuse(failure_code::unsupported,
                    fmt::format("log setting '{}' cannot change while the server runs: the log "
                                "goes to standard error in one format",
                                name));
    *known = value;
  }
  set_log_level(level_of(all));
  return logging_json();
}

std::string trace_json() { return tracing().dump(); }

outcome<std::string> change_trace(std::string_view changes) {
  const auto body = parse_body(changes);
  if (!body)
    return refuse(body.error().message);
  const auto now = tracing();
  for (const auto& [name, value] : body->items()) {
    const auto known = now.find(name);
    if (known == now.end())
      return refuse(fmt::format("unknown trace setting '{}'", name.substr(0, 64)));
    const bool empty = value.is_null() || (value.is_array() && value.empty());
    if (!empty && word_of(value) != word_of(*known))
      return refuse(
          failure_code::unsupported,
          fmt::format("tracing is not part of this build: '{}' stays {}", name, known->dump()));
  }
  return trace_json();
}

} // namespace troupe::actors::kserve
