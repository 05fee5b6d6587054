#include "actors/edge/routes.hpp"

#include <array>
#include <cctype>
#include <utility>

namespace troupe::actors {

namespace {

constexpr std::string_view get = "GET, HEAD, OPTIONS";
constexpr std::string_view post = "POST, OPTIONS";

struct row {
  std::string_view path;
  route_id id;
  std::string_view allow;
  bool guarded;
};

constexpr std::array rows = {
    row{"/v1/completions", route_id::completions, post, true},
    row{"/v1/chat/completions", route_id::chat, post, true},
    row{"/v1/models", route_id::models, get, true},
    row{"/health", route_id::health, get, false},
    row{"/ready", route_id::ready, get, false},
    row{"/metrics", route_id::metrics, get, false},
    row{"/version", route_id::version, get, false},
    row{"/troupe/v1/status", route_id::status, get, true},
    row{"/troupe/v1/drain", route_id::drain, post, true},
    row{"/troupe/v1/debug/kill", route_id::kill, post, true},
};

int digit(char c) {
  const auto u = static_cast<unsigned char>(c);
  if (std::isdigit(u) != 0)
    return c - '0';
  return std::isxdigit(u) != 0 ? std::tolower(u) - 'a' + 10 : -1;
}

std::string decode(std::string_view s) {
  std::string out;
  for (std::size_t i = 0; i < s.size(); ++i) {
    const bool escape =
        s[i] == '%' && i + 2 < s.size() && digit(s[i + 1]) >= 0 && digit(s[i + 2]) >= 0;
    out += escape ? static_cast<char>(digit(s[i + 1]) * 16 + digit(s[i + 2])) : s[i];
    i += escape ? 2 : 0;
  }
  return out;
}

/// The path of a target, also where it stands in a whole address ("http://host/path").
std::string_view path_of(std::string_view target) {
  constexpr std::string_view scheme_end = "://";
  target = target.substr(0, target.find_first_of("?#"));
  const auto scheme = target.substr(0, 1) == "/" ? std::string_view::npos : target.find(scheme_end);
  if (scheme == std::string_view::npos)
    return target;
  const auto begin = target.find('/', scheme + scheme_end.size());
  return begin == std::string_view::npos ? "/" : target.substr(begin);
}

constexpr std::string_view v2 = "/v2";

bool is_below_v2(std::string_view path) {
  return path.substr(0, v2.size()) == v2 && (path.size() == v2.size() || path[v2.size()] == '/');
}

route kserve_route(std::string_view path) {
  std::vector<std::string> segments;
  for (path.remove_prefix(v2.size()); !path.empty();) {
    path.remove_prefix(1);
    const auto slash = path.find('/');
    segments.push_back(decode(path.substr(0, slash)));
    path = slash == std::string_view::npos ? std::string_view{} : path.substr(slash);
  }
  route r;
  r.below_v2 = true;
  r.v2 = kserve::find_path(segments);
  if (!r.v2)
    return r;
  r.id = route_id::kserve;
  r.label = r.v2->label;
  r.allow = r.v2->allow;
  r.guarded = !kserve::is_health(r.v2->what);
  return r;
}

} // namespace

route find_route(std::string_view target) {
  constexpr std::string_view models = "/v1/models/";
  auto path = path_of(target);
  if (path.size() > 1 && path.back() == '/')
    path.remove_suffix(1);
  for (const auto& r : rows)
    if (r.path == path)
      return {r.id, r.path, r.allow, r.guarded, {}, {}, false};
  if (is_below_v2(path))
    return kserve_route(path);
  if (path.substr(0, models.size()) == models)
    return {route_id::model,
            "/v1/models/{id}",
            get,
            true,
            decode(path.substr(models.size())),
            {},
            false};
  return {};
}

bool takes(const route& r, std::string_view method) {
  auto left = r.allow;
  while (!left.empty()) {
    const auto comma = left.find(", ");
    if (left.substr(0, comma) == method)
      return true;
    left = comma == std::string_view::npos ? std::string_view{} : left.substr(comma + 2);
  }
  return false;
}

} // namespace troupe::actors
