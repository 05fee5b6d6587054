#include "actors/backend/library_host.hpp"

#include "engine/text/utf8.hpp"
#include "troupe/base/log.hpp"

#include <algorithm>
#include <cmath>

namespace troupe::actors {

namespace {

constexpr std::size_t longest_line = 2000;
constexpr std::size_t longest_name = 64;

/// What a library says, in whole characters, at most about so many bytes of them.
std::string readable(std::string_view text, std::size_t most) {
  while (text.size() > most && !engine::text::is_boundary(text, most))
    --most;
  return engine::text::to_utf8_lossy(std::string{text.substr(0, most)});
}

log_level level_of(backends::log_severity severity) {
  switch (severity) {
  case backends::log_severity::debug:
    return log_level::debug;
  case backends::log_severity::warning:
    return log_level::warn;
  case backends::log_severity::error:
    return log_level::error;
  default:
    return log_level::info;
  }
}

} // namespace

void library_host::log(backends::log_severity severity, std::string_view text) {
  const auto level = level_of(severity);
  if (!log_enabled(level))
    return;
  // One call is one line, whatever it holds.
  auto line = readable(text, longest_line);
  std::replace_if(
      line.begin(), line.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; }, ' ');
  write_log(level, "model " + model_ + ": " + line);
}

void library_host::count(std::string_view metric, double by) {
  if (numbers_ && std::isfinite(by))
    numbers_->backend_count(model_, readable(metric, longest_name), by);
}

void library_host::measure(std::string_view metric, double value) {
  if (numbers_)
    numbers_->backend_measure(model_, readable(metric, longest_name), value);
}

backends::model_facts facts_of(const config::triton_model& model, std::uint64_t version,
                               std::uint32_t instance) {
  backends::model_facts facts{.name = model.name,
                              .version = version,
                              .directory = model.directory,
                              .parameters = {},
                              .config_json = model.to_json(),
                              .instance = instance};
  for (const auto& [key, value] : model.parameters)
    facts.parameters[key] = *value;
  return facts;
}

} // namespace troupe::actors
