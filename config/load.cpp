#include "troupe/config/load.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "config/cluster_reader.hpp"
#include "config/files.hpp"
#include "config/model_reader.hpp"
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

void read_models(const json_value& root, const std::optional<std::vector<std::string>>& listed,
                 const load_options& options, cluster_config& out, diagnostic_sink& sink) {
  const auto* models = root.find("models");
  if (models != nullptr && models->kind == json_kind::null)
    models = nullptr;
  if (models != nullptr && models->kind != json_kind::object) {
    sink.error(errc::invalid_argument, models->from(), "models",
               "must be an object in braces, e.g. {\"bard\": {\"instances\": 2}}");
    return;
  }
  if (out.model_repository->empty())
    return;
  const auto entries = scan_repository(*out.model_repository, sink);
  if (models != nullptr)
    refuse_strangers(*models, entries, out, sink);
  for (const auto& entry : entries) {
    if (sink.full())
      return;
    if (listed && std::find(listed->begin(), listed->end(), entry.name) == listed->end())
      continue;
    const auto* section = models == nullptr ? nullptr : models->find(entry.name);
    out.models.push_back(read_model(entry, {section, options, out.cpu_threads}, sink));
  }
  if (out.models.empty() && listed && listed->empty())
    sink.error(errc::invalid_argument, models->from(), "models",
               "names no model; leave it out to serve all of the repository");
  else if (out.models.empty() && !sink.failed())
    sink.error(errc::not_found, out.model_repository.from, "model_repository",
               fmt::format("'{}' holds no model to serve; expected <model>/<version>/model.json",
                           out.model_repository->string()));
  refuse_equal_names(out.models, sink);
}

} // namespace

load_result check_cluster(const std::filesystem::path& file, const load_options& options) {
  diagnostic_sink sink;
  cluster_config cluster;
  cluster.file = file;
  if (auto root = read_json(file, origin_kind::user_file, sink)) {
    const auto listed = listed_models(*root);
    if (root->kind == json_kind::object) {
      apply_environment(*root, options.environment, sink);
      apply_command_line(*root, options.set, sink);
    }
    read_cluster(*root, options, cluster, sink);
    if (root->kind == json_kind::object)
      read_models(*root, listed, options, cluster, sink);
  }
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

} // namespace troupe::config
