#include "troupe/config/load.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "config/cluster_reader.hpp"
#include "config/files.hpp"
#include "config/model_reader.hpp"
#include "config/models.hpp"
#include "config/override_files.hpp"
#include "config/overrides.hpp"
#include "config/reader.hpp"
#include "config/text.hpp"

namespace troupe::config {

namespace {

/// The models that the file names, before overrides: only those are served. Without the key all
/// models of the repository are, whatever an override says about one of them.
std::optional<std::vector<std::string>> listed_models(const json_value& root) {
  const auto* models = root.find("models");
  if (models == nullptr || models->kind != json_kind::object)
    return std::nullopt;
  std::vector<std::string> names;
  for (const auto& m : models->members)
    names.push_back(m.key);
  return names;
}

void refuse_strangers(const json_value& models, const std::vector<repository_entry>& entries,
                      const cluster_config& cluster, diagnostic_sink& sink) {
  std::vector<std::string_view> known;
  for (const auto& entry : entries)
    known.push_back(entry.name);
  for (const auto& m : models.members) {
    if (sink.full() || std::find(known.begin(), known.end(), m.key) != known.end())
      continue;
    auto at = m.value.from();
    at.line = m.line == 0 ? at.line : m.line;
    sink.error(errc::not_found, at, join_path("models", m.key),
               fmt::format("the repository '{}' has no such model{}",
                           cluster.model_repository->string(), did_you_mean(m.key, known)));
  }
}

void refuse_equal_names(const std::vector<model_config>& models, diagnostic_sink& sink) {
  for (std::size_t i = 1; i < models.size() && !sink.full(); ++i) {
    for (const auto& name : *models[i].engine.served_model_name) {
      for (std::size_t j = 0; j < i; ++j) {
        const auto& others = *models[j].engine.served_model_name;
        if (std::find(others.begin(), others.end(), name) == others.end())
          continue;
        const auto& from = models[i].engine.served_model_name.from;
        const origin file{origin_kind::user_file, models[i].model_json.string(), 1, {}};
        sink.error(errc::conflict, is_explicit(from) ? from : file,
                   join_path(join_path("models", models[i].name), "served_model_name"),
                   fmt::format("{} is also the name of the model '{}' (by {}); names are unique",
                               in_quotes(name), models[j].name,
                               to_string(models[j].engine.served_model_name.from)));
      }
    }
  }
}

/// Whether the cluster file and the caller want this model.
bool is_wanted(const std::string& name, const std::optional<std::vector<std::string>>& listed,
               const load_options& options, const cluster_config& cluster) {
  return (!listed || std::find(listed->begin(), listed->end(), name) != listed->end()) &&
         (!options.as_started || starts_with(cluster.model_control, name));
}

/// What is to be loaded at the start must be there.
void check_startup(const std::vector<repository_entry>& entries, const cluster_config& cluster,
                   diagnostic_sink& sink) {
  std::vector<std::string_view> known;
  for (const auto& entry : entries)
    known.push_back(entry.name);
  for (const auto& name : *cluster.model_control.load_models)
    if (name != "*" && std::find(known.begin(), known.end(), name) == known.end())
      sink.error(errc::not_found, cluster.model_control.load_models.from,
                 "model_control.load_models",
                 fmt::format("the repository '{}' has no such model as {}{}",
                             cluster.model_repository->string(), in_quotes(name),
                             did_you_mean(name, known)));
}

void take_model(read_model_result read, cluster_config& out) {
  if (read.engines.empty()) {
    out.custom_models.push_back(std::move(read.description));
    return;
  }
  out.models.push_back(std::move(read.engines.back()));
  read.engines.pop_back();
  for (auto& engine : read.engines)
    out.older_versions.push_back(std::move(engine));
}

/// `models` of the cluster file; null when there is none, or when it is no object, which is
/// reported.
const json_value* models_section(const json_value& root, diagnostic_sink& sink) {
  const auto* models = root.find("models");
  if (models == nullptr || models->kind == json_kind::null)
    return nullptr;
  if (models->kind == json_kind::object)
    return models;
  sink.error(errc::invalid_argument, models->from(), "models",
             "must be an object in braces, e.g. {\"bard\": {\"instances\": 2}}");
  return nullptr;
}

void read_models(const json_value& root, const std::optional<std::vector<std::string>>& listed,
                 const load_options& options, cluster_config& out, diagnostic_sink& sink) {
  const auto errors = sink.error_count();
  const auto* models = models_section(root, sink);
  if (out.model_repository->empty() || sink.error_count() > errors)
    return;
  const auto entries = scan_repository(*out.model_repository, sink);
  if (models != nullptr)
    refuse_strangers(*models, entries, out, sink);
  check_startup(entries, out, sink);
  bool found = false;
  for (const auto& entry : entries) {
    if (sink.full())
      return;
    if (!is_wanted(entry.name, listed, options, out))
      continue;
    found = true;
    const auto* section = models == nullptr ? nullptr : models->find(entry.name);
    if (auto read = read_whole_model(entry, {section, options, out}, nullptr, sink))
      take_model(std::move(*read), out);
  }
  if (!found && listed && listed->empty())
    sink.error(errc::invalid_argument, models->from(), "models",
               "names no model; leave it out to serve all of the repository");
  else if (!found && *out.model_control.mode == control_mode::none && !sink.failed())
    sink.error(errc::not_found, out.model_repository.from, "model_repository",
               fmt::format("'{}' holds no model to serve; expected <model>/<version>/model.json",
                           out.model_repository->string()));
  refuse_equal_names(out.models, sink);
}

/// What stands for the cluster file when only a repository is given.
json_value repository_root(const std::filesystem::path& directory) {
  auto source = std::make_shared<const json_source>(
      json_source{origin_kind::command_line, "command line",
                  fmt::format("--model-repository {}", directory.string())});
  json_value root;
  root.kind = json_kind::object;
  root.source = source;
  json_value repository;
  repository.kind = json_kind::string;
  repository.text = directory.string();
  repository.source = std::move(source);
  root.members.push_back({"model_repository", 0, std::move(repository)});
  return root;
}

/// The cluster file with the overrides laid over it, and its values but for the models.
struct cluster_text {
  json_value root;
  std::optional<std::vector<std::string>> listed;
};

std::optional<cluster_text> read_text(const std::filesystem::path& file,
                                      const load_options& options, cluster_config& cluster,
                                      diagnostic_sink& sink) {
  cluster.file = file;
  std::error_code ec;
  const bool repository = std::filesystem::is_directory(file, ec);
  auto root = repository ? std::optional{repository_root(file)}
                         : read_json(file, origin_kind::user_file, sink);
  if (!root)
    return std::nullopt;
  cluster_text out{std::move(*root), {}};
  out.listed = listed_models(out.root);
  const bool object = out.root.kind == json_kind::object;
  if (object) {
    apply_environment(out.root, options.environment, sink);
    apply_command_line(out.root, options.set, sink);
  }
  read_cluster(out.root, options, cluster, sink);
  if (repository && out.root.find("nodes") == nullptr)
    add_repository_edges(out.root, options.capabilities, cluster.nodes.front(), sink);
  return object ? std::optional{std::move(out)} : std::nullopt;
}

} // namespace

load_result check_cluster(const std::filesystem::path& file, const load_options& options) {
  diagnostic_sink sink;
  cluster_config cluster;
  if (const auto text = read_text(file, options, cluster, sink))
    read_models(text->root, text->listed, options, cluster, sink);
  load_result out;
  const bool failed = sink.failed();
  out.diagnostics = sink.take();
  if (!failed)
    out.config = std::move(cluster);
  return out;
}

result<cluster_config> load_cluster(const std::filesystem::path& file,
                                    const load_options& options) {
  auto loaded = check_cluster(file, options);
  if (!loaded.config)
    return fail(to_error(loaded.diagnostics));
  return std::move(*loaded.config);
}

result<loaded_model> load_model(const std::filesystem::path& file, std::string_view name,
                                const load_options& options, const model_overrides& overrides) {
  diagnostic_sink sink;
  cluster_config cluster;
  const auto text = read_text(file, options, cluster, sink);
  const auto* models = text ? models_section(text->root, sink) : nullptr;
  if (sink.failed() || !text)
    return fail(to_error(sink.take()));
  const auto* section = models == nullptr ? nullptr : models->find(name);
  const auto* json = overrides.config ? &*overrides.config : nullptr;
  loaded_model out;
  auto repository = *cluster.model_repository;
  if (!overrides.files.empty()) {
    auto written = write_override_files(std::string{name}, overrides);
    if (!written)
      return fail(written.error());
    repository = written->repository;
    out.files = std::move(written->keeper);
  }
  const auto entry = find_in_repository(repository, std::string{name}, sink);
  auto read =
      entry ? read_whole_model(*entry, {section, options, cluster}, json, sink) : std::nullopt;
  auto findings = sink.take();
  if (!read)
    return fail(to_error(findings));
  out.description = std::move(read->description);
  out.engines = std::move(read->engines);
  out.warnings = std::move(findings);
  out.fingerprint = read->fingerprint;
  return out;
}

} // namespace troupe::config
