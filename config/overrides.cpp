#include "config/overrides.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "config/text.hpp"
#include "troupe/config/load.hpp"

namespace troupe::config {

namespace {

constexpr std::size_t most_segments = 16;

/// The variables that have names of their own; all other fields go through TROUPE_SET__.
struct variable {
  std::string_view name;
  std::string_view path;
};
constexpr variable variables_by_name[] = {
    {"TROUPE_HTTP_PORT", "edges.http.port"}, {"TROUPE_HTTP_HOST", "edges.http.host"},
    {"TROUPE_LOG_LEVEL", "log_level"},       {"TROUPE_MODEL_REPOSITORY", "model_repository"},
    {"TROUPE_CPU_THREADS", "cpu.threads"},
};
/// Where the cache of Hugging Face is.
constexpr std::string_view cache_variables[] = {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME",
                                                "XDG_CACHE_HOME", "HOME"};
constexpr std::string_view general_prefix = "TROUPE_SET__";

struct override_text {
  std::vector<std::string> path;
  std::string value;
  std::shared_ptr<const json_source> source;
};

/// Splits at dots outside of double quotes; empty when a segment is empty or a quote stays open.
std::vector<std::string> split_path(std::string_view text) {
  std::vector<std::string> segments(1);
  bool inside = false;
  for (const char c : text) {
    if (c == '"')
      inside = !inside;
    else if (c == '.' && !inside)
      segments.emplace_back();
    else
      segments.back() += c;
  }
  const bool bad =
      inside || segments.size() > most_segments ||
      std::any_of(segments.begin(), segments.end(), [](const auto& s) { return s.empty(); });
  return bad ? std::vector<std::string>{} : segments;
}

std::vector<std::string> split_variable(std::string_view text) {
  std::string dotted;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text.substr(i, 2) == "__") {
      dotted += '.';
      ++i;
    } else {
      dotted += text[i];
    }
  }
  return split_path(dotted);
}

/// JSON where it parses as such, else the text itself; text that begins like JSON must be JSON.
std::optional<json_value> parse_value(const override_text& o, diagnostic_sink& sink) {
  diagnostic_sink unseen;
  if (auto parsed = parse_json(o.value, o.source, unseen); parsed && unseen.size() == 0) {
    parsed->line = 0;
    return parsed;
  }
  if (!o.value.empty() && std::string_view{"{[\""}.find(o.value.front()) != std::string::npos) {
    (void)parse_json(o.value, o.source, sink);
    return std::nullopt;
  }
  json_value text;
  text.kind = json_kind::string;
  text.text = o.value;
  text.source = o.source;
  return text;
}

/// An element by index or, for nodes, by name.
json_value* find_item(json_value& list, const std::string& segment) {
  std::size_t index = 0;
  const auto* end = segment.data() + segment.size();
  if (const auto r = std::from_chars(segment.data(), end, index);
      r.ec == std::errc{} && r.ptr == end)
    return index < list.items.size() ? &list.items[index] : nullptr;
  for (auto& item : list.items) {
    const auto* name = item.find("name");
    if (name != nullptr && name->text == segment)
      return &item;
  }
  return nullptr;
}

void make_object(json_value& v, const override_text& o) {
  // A port alone is short for an object with a port; what is set beside it must not lose it.
  const bool is_port = v.kind == json_kind::integer;
  json_value old = std::exchange(v, json_value{});
  v.kind = json_kind::object;
  v.line = old.line;
  v.source = old.kind == json_kind::null ? o.source : old.source;
  if (is_port) {
    const auto line = old.line;
    v.members.push_back({"port", line, std::move(old)});
  }
}

void apply(json_value& root, const override_text& o, diagnostic_sink& sink) {
  const origin here{o.source->kind, o.source->file, 0, o.source->text};
  const bool clean = is_clean_text(o.value) &&
                     std::all_of(o.path.begin(), o.path.end(),
                                 [](const auto& segment) { return is_clean_text(segment); });
  if (!clean)
    return sink.error(errc::corrupt_data, here, "",
                      "is not UTF-8 text without control characters; type it anew");
  auto value = parse_value(o, sink);
  if (!value)
    return;
  json_value* at = &root;
  for (const auto& segment : o.path) {
    if (at->kind == json_kind::array) {
      at = find_item(*at, segment);
      if (at == nullptr)
        return sink.error(errc::not_found, here, "",
                          fmt::format("the list has no element {}", in_quotes(segment)));
      continue;
    }
    if (at->kind != json_kind::object)
      make_object(*at, o);
    json_value* next = at->find(segment);
    if (next == nullptr) {
      at->members.push_back({segment, 0, {}});
      next = &at->members.back().value;
      next->source = o.source;
    }
    at = next;
  }
  *at = std::move(*value);
}

/// In a file with nodes, edges belong to the node where requests enter.
std::vector<std::string> place_edges(const json_value& root, std::vector<std::string> path) {
  const auto* nodes = root.find("nodes");
  if (path.front() != "edges" || nodes == nullptr || nodes->items.empty())
    return path;
  std::size_t front = 0;
  for (std::size_t i = nodes->items.size(); i-- > 0;) {
    const auto* edges = nodes->items[i].find("edges");
    if (edges != nullptr && edges->find("http") != nullptr)
      front = i;
  }
  path.insert(path.begin(), {"nodes", std::to_string(front)});
  return path;
}

std::shared_ptr<const json_source> make_source(origin_kind kind, std::string_view file,
                                               std::string text) {
  return std::make_shared<const json_source>(json_source{kind, std::string{file}, std::move(text)});
}

} // namespace

void apply_environment(json_value& root, const std::map<std::string, std::string>& variables,
                       diagnostic_sink& sink) {
  std::vector<std::string_view> names{general_prefix};
  for (const auto& row : variables_by_name)
    names.push_back(row.name);
  for (const auto& [name, value] : variables) {
    if (!name.starts_with("TROUPE_"))
      continue;
    override_text o{{}, value, make_source(origin_kind::environment, "environment", name)};
    const origin at{origin_kind::environment, "environment", 0, name};
    for (const auto& row : variables_by_name) {
      if (row.name == name)
        o.path = place_edges(root, split_path(row.path));
    }
    if (name.starts_with(general_prefix)) {
      o.path = split_variable(std::string_view{name}.substr(general_prefix.size()));
      if (o.path.empty())
        sink.error(errc::invalid_argument, at, "",
                   "names no field; write TROUPE_SET__path__to__key");
    } else if (o.path.empty()) {
      sink.warn(at, "", fmt::format("is not read by anybody{}", did_you_mean(name, names)));
    }
    if (!o.path.empty())
      apply(root, o, sink);
  }
}

void apply_command_line(json_value& root, const std::vector<std::string>& texts,
                        diagnostic_sink& sink) {
  for (const auto& text : texts) {
    const auto source =
        make_source(origin_kind::command_line, "command line", fmt::format("--set {}", text));
    const auto equals = text.find('=');
    override_text o{equals == std::string::npos
                        ? std::vector<std::string>{}
                        : split_path(std::string_view{text}.substr(0, equals)),
                    equals == std::string::npos ? std::string{} : text.substr(equals + 1), source};
    if (o.path.empty()) {
      sink.error(errc::invalid_argument, {source->kind, source->file, 0, source->text}, "",
                 fmt::format("{} is not of the form path.to.key=value", in_quotes(text)));
      continue;
    }
    o.path = place_edges(root, std::move(o.path));
    apply(root, o, sink);
  }
}

std::map<std::string, std::string> process_environment() {
  std::map<std::string, std::string> found;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text{*entry};
    const auto equals = text.find('=');
    const auto name = text.substr(0, equals);
    const bool counts = name.starts_with("TROUPE_") ||
                        std::find(std::begin(cache_variables), std::end(cache_variables), name) !=
                            std::end(cache_variables);
    if (counts && equals != std::string_view::npos)
      found.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return found;
}

} // namespace troupe::config
