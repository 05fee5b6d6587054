#include <fmt/core.h>

#include <algorithm>
#include <charconv>

#include "config/model_reader.hpp"
#include "config/text.hpp"

namespace troupe::config {

namespace {

constexpr std::size_t most_models = 1024;
constexpr std::size_t most_entries = 65'536;

/// The names of the directories in `at`, sorted; hidden ones are not models.
std::vector<std::string> directories(const std::filesystem::path& at, diagnostic_sink& sink) {
  std::vector<std::string> names;
  std::error_code ec;
  std::size_t seen = 0;
  for (std::filesystem::directory_iterator it{at, ec}, end; !ec && it != end; it.increment(ec)) {
    if (++seen > most_entries)
      break;
    std::error_code status;
    auto name = it->path().filename().string();
    if (it->is_directory(status) && !name.starts_with('.'))
      names.push_back(std::move(name));
  }
  if (ec)
    sink.error(errc::io_failure, {origin_kind::user_file, at.string(), 0, {}}, "",
               fmt::format("cannot be listed: {}", ec.message()));
  std::sort(names.begin(), names.end());
  return names;
}

std::optional<std::uint64_t> version_of(const std::string& name) {
  std::uint64_t n = 0;
  const auto* end = name.data() + name.size();
  const auto r = std::from_chars(name.data(), end, n);
  return r.ec == std::errc{} && r.ptr == end && n > 0 ? std::optional{n} : std::nullopt;
}

std::optional<repository_entry> entry_at(const std::filesystem::path& directory,
                                         const std::string& name, diagnostic_sink& sink) {
  repository_entry entry{name, 0, {}, {}};
  for (const auto& sub : directories(directory, sink)) {
    const auto version = version_of(sub);
    if (!version || *version < entry.version)
      continue;
    entry.version = *version;
    entry.model_json = directory / sub / "model.json";
  }
  std::error_code ec;
  if (const auto pbtxt = directory / "config.pbtxt"; std::filesystem::exists(pbtxt, ec))
    entry.config_pbtxt = pbtxt;
  if (entry.version > 0)
    return entry;
  sink.warn({origin_kind::user_file, directory.string(), 0, {}}, "",
            "is no model, since it has no version directory; move its files to 1/, or the "
            "directory elsewhere");
  return std::nullopt;
}

} // namespace

std::vector<repository_entry> scan_repository(const std::filesystem::path& repository,
                                              diagnostic_sink& sink) {
  std::vector<repository_entry> entries;
  for (const auto& name : directories(repository, sink)) {
    if (entries.size() >= most_models) {
      sink.error(errc::limit_exceeded, {origin_kind::user_file, repository.string(), 0, {}}, "",
                 fmt::format("holds more than {} models", most_models));
      break;
    }
    if (!is_clean_text(name)) {
      sink.error(
          errc::invalid_argument, {origin_kind::user_file, repository.string(), 0, {}}, "",
          fmt::format("the name of the directory {} is not UTF-8; rename it", in_quotes(name)));
      continue;
    }
    if (auto entry = entry_at(repository / name, name, sink))
      entries.push_back(std::move(*entry));
  }
  return entries;
}

} // namespace troupe::config
