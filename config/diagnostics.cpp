#include "troupe/config/diagnostics.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <tuple>

#include "config/sink.hpp"
#include "troupe/base/check.hpp"

namespace troupe::config {

std::string to_string(const diagnostic& d) {
  std::string text = d.file;
  if (d.line > 0)
    text += d.column > 0 ? fmt::format(":{}:{}", d.line, d.column) : fmt::format(":{}", d.line);
  text += d.severity == severity::error ? ": error: " : ": warning: ";
  if (!d.path.empty())
    text += d.path + ": ";
  return text + d.message;
}

bool has_errors(const std::vector<diagnostic>& all) noexcept {
  return std::any_of(all.begin(), all.end(),
                     [](const diagnostic& d) { return d.severity == severity::error; });
}

error to_error(const std::vector<diagnostic>& all) {
  TROUPE_CHECK(has_errors(all), "{} findings, none is an error", all.size());
  error joined{errc::none, {}};
  for (const auto& d : all) {
    if (d.severity != severity::error)
      continue;
    if (joined.code == errc::none)
      joined.code = d.code;
    if (!joined.note.empty())
      joined.note += '\n';
    joined.note += to_string(d);
  }
  return joined;
}

void diagnostic_sink::error(errc code, const origin& at, std::string path, std::string message) {
  const bool has_file = at.kind == origin_kind::user_file || at.kind == origin_kind::model_file;
  ++errors_;
  add({severity::error, code, has_file ? at.file : to_string(at), at.line, std::move(path),
       std::move(message), at.column});
}

void diagnostic_sink::warn(const origin& at, std::string path, std::string message) {
  const bool has_file = at.kind == origin_kind::user_file || at.kind == origin_kind::model_file;
  add({severity::warning, errc::none, has_file ? at.file : to_string(at), at.line, std::move(path),
       std::move(message), at.column});
}

void diagnostic_sink::add(diagnostic found) {
  if (full())
    dropped_ = true;
  else
    all_.push_back(std::move(found));
}

std::vector<diagnostic> diagnostic_sink::take() {
  std::stable_sort(all_.begin(), all_.end(), [](const diagnostic& a, const diagnostic& b) {
    return std::tie(a.file, a.line) < std::tie(b.file, b.line);
  });
  if (dropped_ && !all_.empty())
    all_.push_back({severity::error, errc::limit_exceeded, all_.back().file, all_.back().line, "",
                    "there are more mistakes than are shown; mend these first"});
  return std::move(all_);
}

} // namespace troupe::config
