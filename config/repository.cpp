#include <fmt/core.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <map>

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
  const bool good = r.ec == std::errc{} && r.ptr == end && name.front() != '0';
  return good ? std::optional{n} : std::nullopt;
}

bool all_digits(std::string_view name) {
  return std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
}

std::optional<repository_entry> entry_at(const std::filesystem::path& directory,
                                         const std::string& name, diagnostic_sink& sink) {
  repository_entry entry{name, directory, {}, {}};
  const origin here{origin_kind::user_file, directory.string(), 0, {}};
  for (const auto& sub : directories(directory, sink)) {
    if (const auto version = version_of(sub))
      entry.versions.push_back(*version);
    else if (all_digits(sub))
      sink.warn(here, "",
                fmt::format("the directory {} is no version; versions are integers from 1 without "
                            "leading zeros",
                            in_quotes(sub)));
  }
  std::sort(entry.versions.begin(), entry.versions.end());
  std::error_code ec;
  if (const auto pbtxt = directory / "config.pbtxt"; std::filesystem::exists(pbtxt, ec))
    entry.config_pbtxt = pbtxt;
  if (!entry.versions.empty())
    return entry;
  sink.warn(here, "",
            "is no model, since it has no version directory; move its files to 1/, or the "
            "directory elsewhere");
  return std::nullopt;
}

/// False for what is no plain name of a directory, such as "..".
bool is_plain_name(const std::string& name) {
  return !name.empty() && name.front() != '.' && name.find('/') == std::string::npos &&
         is_clean_text(name);
}

/// Names, sizes and times of the files of a tree, folded by FNV-1a over sorted names.
class tree_print {
public:
  [[nodiscard]] result<void> add(const std::filesystem::path& at, const std::string& below,
                                 unsigned depth) {
    std::map<std::string, std::filesystem::path> sorted;
    std::error_code ec;
    for (std::filesystem::directory_iterator it{at, ec}, end; !ec && it != end; it.increment(ec)) {
      if (++seen_ > most_entries)
        return fail(errc::limit_exceeded,
                    fmt::format("{} holds more than {} files", at.string(), most_entries));
      sorted.emplace(it->path().filename().string(), it->path());
    }
    if (ec)
      return fail(errc::io_failure,
                  fmt::format("{} cannot be listed: {}", at.string(), ec.message()));
    for (const auto& [name, path] : sorted) {
      fold(below + "/" + name);
      struct stat info {};
      if (::stat(path.c_str(), &info) != 0)
        continue;
      if (S_ISDIR(info.st_mode) && depth < deepest) {
        if (auto done = add(path, below + "/" + name, depth + 1); !done)
          return done;
        continue;
      }
      fold(fmt::format("{} {} {}.{}", info.st_ino, info.st_size, info.st_mtim.tv_sec,
                       info.st_mtim.tv_nsec));
    }
    return {};
  }

  [[nodiscard]] std::uint64_t sum() const noexcept { return sum_; }

private:
  static constexpr unsigned deepest = 8;

  void fold(std::string_view text) noexcept {
    for (const unsigned char c : text)
      sum_ = (sum_ ^ c) * 0x100000001B3U;
    sum_ = (sum_ ^ 0xFFU) * 0x100000001B3U;
  }

  std::uint64_t sum_ = 0xCBF29CE484222325U;
  std::size_t seen_ = 0;
};

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

std::optional<repository_entry> find_in_repository(const std::filesystem::path& repository,
                                                   const std::string& name, diagnostic_sink& sink) {
  std::error_code ec;
  if (!is_plain_name(name) || !std::filesystem::is_directory(repository / name, ec)) {
    const auto known = directories(repository, sink);
    sink.error(errc::not_found, {origin_kind::user_file, repository.string(), 0, {}}, "",
               fmt::format("there is no model {}{}", in_quotes(name),
                           did_you_mean(name, {known.begin(), known.end()})));
    return std::nullopt;
  }
  auto entry = entry_at(repository / name, name, sink);
  if (!entry)
    sink.error(errc::not_found, {origin_kind::user_file, (repository / name).string(), 0, {}}, "",
               fmt::format("at least one version must be available of model '{}'", name));
  return entry;
}

result<std::vector<repository_listing>> list_repository(const std::filesystem::path& repository) {
  diagnostic_sink sink;
  std::vector<repository_listing> all;
  for (auto& entry : scan_repository(repository, sink))
    all.push_back({std::move(entry.name), std::move(entry.versions)});
  if (sink.failed())
    return fail(to_error(sink.take()));
  return all;
}

result<std::uint64_t> fingerprint_model(const std::filesystem::path& repository,
                                        std::string_view name) {
  const std::string plain{name};
  std::error_code ec;
  if (!is_plain_name(plain) || !std::filesystem::is_directory(repository / plain, ec))
    return fail(errc::not_found,
                fmt::format("{} has no model {}", repository.string(), in_quotes(name)));
  tree_print print;
  if (auto done = print.add(repository / plain, "", 0); !done)
    return fail(done.error());
  return print.sum();
}

} // namespace troupe::config
