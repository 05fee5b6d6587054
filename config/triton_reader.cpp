#include "config/triton_reader.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "config/completion.hpp"
#include "config/files.hpp"
#include "config/text.hpp"

namespace troupe::config {

namespace {

constexpr std::size_t most_bytes = 1U << 20U;

/// Triton's way to name a backend without a config.pbtxt is the directory `<model>.<backend>`.
std::string_view backend_of_name(std::string_view directory) {
  const auto dot = directory.rfind('.');
  const auto suffix =
      dot == std::string_view::npos ? std::string_view{} : directory.substr(dot + 1);
  return is_engine_backend(suffix) ? suffix : std::string_view{};
}

bool has_model_json(const repository_entry& entry) {
  std::error_code ec;
  return std::any_of(entry.versions.begin(), entry.versions.end(), [&](std::uint64_t version) {
    return std::filesystem::exists(entry.version_directory(version) / "model.json", ec);
  });
}

void complete_names(triton_draft& draft, const repository_entry& entry, diagnostic_sink& sink) {
  auto& m = draft.message;
  if (!draft.said("name") || m.name().empty()) {
    m.set_name(entry.name);
    draft.origins["name"] = {origin_kind::default_value, "", 0, "the directory's name"};
  }
  if (!m.backend().empty())
    return;
  if (const auto suffix = backend_of_name(entry.name); !suffix.empty()) {
    m.set_backend(std::string{suffix});
    draft.origins["backend"] = {origin_kind::auto_completion, "", 0, "the directory's name"};
  } else if (has_model_json(entry)) {
    m.set_backend("troupe");
    draft.origins["backend"] = {origin_kind::auto_completion, "", 0, "there is a model.json"};
  } else if (!m.has_ensemble_scheduling() && m.platform() != "ensemble") {
    sink.error(errc::invalid_argument, draft.place("platform"), "backend",
               fmt::format("Could not determine backend for model '{}' with no backend in model "
                           "configuration; write backend: \"vllm\", or add <version>/model.json",
                           entry.name));
  }
}

} // namespace

std::optional<triton_draft> read_draft(const repository_entry& entry,
                                       const std::string* config_json, diagnostic_sink& sink) {
  std::optional<triton_draft> draft;
  if (config_json != nullptr) {
    draft = parse_config_json(*config_json, sink);
  } else if (entry.config_pbtxt) {
    const auto text = read_file(*entry.config_pbtxt, most_bytes);
    if (!text)
      sink.error(text.error().code, {origin_kind::user_file, entry.config_pbtxt->string(), 0, {}},
                 "", text.error().note);
    else
      draft = parse_pbtxt(*text, entry.config_pbtxt->string(), sink);
  } else {
    draft.emplace();
    draft->file = entry.directory.string();
  }
  if (draft)
    complete_names(*draft, entry, sink);
  return draft;
}

std::vector<std::uint64_t> choose_versions(const triton_draft& draft,
                                           const std::vector<std::uint64_t>& on_disk,
                                           diagnostic_sink& sink) {
  const auto& policy = draft.message.version_policy();
  std::vector<std::uint64_t> chosen;
  if (policy.has_all()) {
    chosen = on_disk;
  } else if (policy.has_specific()) {
    std::vector<std::uint64_t> wanted;
    for (const auto version : policy.specific().versions())
      wanted.push_back(static_cast<std::uint64_t>(std::max<std::int64_t>(version, 0)));
    for (const auto version : on_disk) {
      if (std::find(wanted.begin(), wanted.end(), version) != wanted.end())
        chosen.push_back(version);
    }
    for (const auto version : wanted) {
      if (std::find(on_disk.begin(), on_disk.end(), version) == on_disk.end())
        sink.warn(draft.place("version_policy.specific.versions"),
                  "version_policy.specific.versions",
                  fmt::format("there is no version {} on disk", version));
    }
  } else {
    const std::size_t count =
        draft.said("version_policy.latest.num_versions") ? policy.latest().num_versions() : 1;
    chosen.assign(on_disk.end() - static_cast<std::ptrdiff_t>(std::min(count, on_disk.size())),
                  on_disk.end());
  }
  if (chosen.empty())
    sink.error(errc::not_found, draft.place("version_policy"), "version_policy",
               fmt::format("at least one version must be available under the version policy of "
                           "model '{}'; there are {} on disk",
                           draft.message.name(), on_disk.size()));
  return chosen;
}

} // namespace troupe::config
