#include "config/hf_cache.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <vector>

#include "config/files.hpp"
#include "config/text.hpp"

namespace troupe::config {

namespace {

constexpr std::size_t most_ref_bytes = 256;
constexpr std::size_t most_snapshots = 1024;

bool is_plain(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' ||
         c == '-' || c == '_';
}

/// A name that stays where it is put.
bool is_segment(std::string_view text) {
  return !text.empty() && text.size() <= 96 && text != "." && text != ".." &&
         std::all_of(text.begin(), text.end(), is_plain);
}

/// Names of branches may hold slashes, e.g. "refs/pr/1", but no way up.
bool is_revision(std::string_view text) {
  while (true) {
    const auto slash = text.find('/');
    if (!is_segment(text.substr(0, slash)))
      return false;
    if (slash == std::string_view::npos)
      return true;
    text.remove_prefix(slash + 1);
  }
}

std::vector<std::string> names_in(const std::filesystem::path& directory) {
  std::vector<std::string> names;
  std::error_code ec;
  for (std::filesystem::directory_iterator it{directory, ec}, end;
       !ec && it != end && names.size() < most_snapshots; it.increment(ec))
    names.push_back(it->path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::string value_of(const std::map<std::string, std::string>& environment, const char* name) {
  const auto found = environment.find(name);
  return found == environment.end() ? std::string{} : found->second;
}

/// Where the programs of a user keep what they can make again; empty when nothing says it.
std::filesystem::path user_cache(const std::map<std::string, std::string>& environment) {
  if (const auto cache = value_of(environment, "XDG_CACHE_HOME"); !cache.empty())
    return cache;
  if (const auto home = value_of(environment, "HOME"); !home.empty())
    return std::filesystem::path{home} / ".cache";
  return {};
}

} // namespace

std::filesystem::path hub_directory(const std::map<std::string, std::string>& environment) {
  for (const auto* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (auto hub = value_of(environment, name); !hub.empty())
      return hub;
  }
  if (const auto home = value_of(environment, "HF_HOME"); !home.empty())
    return std::filesystem::path{home} / "hub";
  const auto cache = user_cache(environment);
  return cache.empty() ? cache : cache / "huggingface" / "hub";
}

std::filesystem::path cache_directory(const std::map<std::string, std::string>& environment) {
  const auto cache = user_cache(environment);
  return cache.empty() ? cache : cache / "troupe";
}

bool is_hub_id(std::string_view text) noexcept {
  const auto slash = text.find('/');
  if (slash == std::string_view::npos)
    return is_segment(text);
  return is_segment(text.substr(0, slash)) && is_segment(text.substr(slash + 1));
}

result<std::filesystem::path> find_in_hub(const std::filesystem::path& hub, std::string_view id,
                                          std::string_view revision) {
  std::string folder = fmt::format("models--{}", id);
  if (const auto slash = folder.find('/'); slash != std::string::npos)
    folder.replace(slash, 1, "--");
  const auto model = hub / folder;
  std::error_code ec;
  if (hub.empty() || !std::filesystem::is_directory(model, ec))
    return fail(errc::not_found,
                fmt::format("there is no '{}' in the cache of Hugging Face{}", folder,
                            hub.empty() ? " (HF_HOME and HOME are not set)"
                                        : fmt::format(" '{}'", hub.string())));
  const std::string wanted{revision.empty() ? "main" : revision};
  if (!is_revision(wanted))
    return fail(errc::invalid_argument, fmt::format("{} is no revision", in_quotes(wanted)));
  if (const auto ref = read_file(model / "refs" / wanted, most_ref_bytes)) {
    const auto commit = ref->substr(0, ref->find_last_not_of(" \r\n\t") + 1);
    const auto snapshot = model / "snapshots" / commit;
    if (is_segment(commit) && std::filesystem::is_directory(snapshot, ec))
      return snapshot;
  }
  if (is_segment(wanted) && std::filesystem::is_directory(model / "snapshots" / wanted, ec))
    return model / "snapshots" / wanted;
  const auto there = names_in(model / "snapshots");
  if (revision.empty() && there.size() == 1 && is_segment(there.front()))
    return model / "snapshots" / there.front();
  std::string list;
  for (const auto& name : there)
    list += fmt::format("{}{}", list.empty() ? "" : ", ", name.substr(0, 40));
  return fail(errc::not_found,
              fmt::format("'{}' has no revision {}; it has {}", model.string(), in_quotes(wanted),
                          there.empty() ? "no snapshot" : list.substr(0, 400)));
}

} // namespace troupe::config
