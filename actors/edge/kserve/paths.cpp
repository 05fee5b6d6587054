#include "actors/edge/kserve/paths.hpp"

#include <array>

namespace troupe::actors::kserve {

namespace {

constexpr std::string_view get = "GET, HEAD, OPTIONS";
constexpr std::string_view post = "POST, OPTIONS";
constexpr std::string_view both = "GET, HEAD, POST, OPTIONS";

struct row {
  /// {model} may be followed by versions/{version} in a path; {region} is one segment.
  std::string_view label;
  operation what;
  std::string_view allow;
};

/// The first that fits counts.
constexpr std::array rows = {
    row{"/v2", operation::server, get},
    row{"/v2/health/live", operation::live, get},
    row{"/v2/health/ready", operation::ready, get},
    row{"/v2/models/stats", operation::stats, get},
    row{"/v2/models/{model}", operation::metadata, get},
    row{"/v2/models/{model}/ready", operation::model_ready, get},
    row{"/v2/models/{model}/config", operation::config, get},
    row{"/v2/models/{model}/stats", operation::stats, get},
    row{"/v2/models/{model}/infer", operation::infer, post},
    row{"/v2/models/{model}/generate", operation::generate, post},
    row{"/v2/models/{model}/generate_stream", operation::generate_stream, post},
    row{"/v2/models/{model}/trace/setting", operation::trace, both},
    row{"/v2/repository/index", operation::index, post},
    row{"/v2/repository/models/{region}/load", operation::load, post},
    row{"/v2/repository/models/{region}/unload", operation::unload, post},
    row{"/v2/systemsharedmemory/status", operation::memory_status, get},
    row{"/v2/systemsharedmemory/region/{region}/status", operation::memory_status, get},
    row{"/v2/systemsharedmemory/region/{region}/register", operation::memory_register, post},
    row{"/v2/systemsharedmemory/region/{region}/unregister", operation::memory_unregister, post},
    row{"/v2/systemsharedmemory/unregister", operation::memory_unregister, post},
    row{"/v2/cudasharedmemory/status", operation::cuda_memory, get},
    row{"/v2/cudasharedmemory/region/{region}/status", operation::cuda_memory, get},
    row{"/v2/cudasharedmemory/region/{region}/register", operation::cuda_memory, post},
    row{"/v2/cudasharedmemory/region/{region}/unregister", operation::cuda_memory, post},
    row{"/v2/cudasharedmemory/unregister", operation::cuda_memory, post},
    row{"/v2/logging", operation::logging, both},
    row{"/v2/trace/setting", operation::trace, both},
};

/// Takes the first segment of `pattern` off.
std::string_view next_segment(std::string_view& pattern) {
  pattern.remove_prefix(1);
  const auto slash = pattern.find('/');
  const auto one = pattern.substr(0, slash);
  pattern = slash == std::string_view::npos ? std::string_view{} : pattern.substr(slash);
  return one;
}

bool fits(std::string_view pattern, const std::vector<std::string>& segments, path& out) {
  constexpr std::string_view root = "/v2";
  pattern.remove_prefix(root.size());
  std::size_t at = 0;
  while (!pattern.empty()) {
    const auto wanted = next_segment(pattern);
    if (at == segments.size())
      return false;
    const auto& given = segments[at++];
    if (wanted.front() != '{') {
      if (wanted != given)
        return false;
      continue;
    }
    if (given.empty())
      return false;
    out.name = given;
    if (wanted == "{model}" && at + 1 < segments.size() && segments[at] == "versions") {
      out.version = segments[at + 1];
      at += 2;
    }
  }
  return at == segments.size();
}

} // namespace

std::optional<path> find_path(const std::vector<std::string>& segments) {
  for (const auto& r : rows) {
    path found{r.what, r.label, r.allow, {}, {}};
    if (fits(r.label, segments, found))
      return found;
  }
  return std::nullopt;
}

bool takes_tensors(operation what) noexcept { return what == operation::infer; }

bool takes_much(operation what) noexcept {
  return what == operation::infer || what == operation::load;
}

bool waits(operation what) noexcept {
  using enum operation;
  return what == infer || what == generate || what == generate_stream || what == load ||
         what == unload;
}

bool is_health(operation what) noexcept {
  return what == operation::live || what == operation::ready;
}

} // namespace troupe::actors::kserve
