#include "engine/exec/tuned_file.hpp"

#include "engine/weights/fingerprint.hpp"

#include <fmt/core.h>

#include <fstream>
#include <system_error>

#include <unistd.h>

namespace troupe::engine {

namespace {

constexpr std::size_t most_values = 100'000;
constexpr std::string_view format_line = "troupe tuned 1";

} // namespace

tuned_file::tuned_file(const std::filesystem::path& directory, std::string about)
    : about_{std::move(about)} {
  if (directory.empty())
    return;
  fingerprint print;
  print.add(about_);
  path_ = directory / fmt::format("tuned-{:016x}.txt", print.value());
}

tuned_file::values tuned_file::read() const {
  values found;
  std::ifstream in{path_};
  std::string line;
  if (!std::getline(in, line) || line != format_line || !std::getline(in, line) || line != about_)
    return found;
  while (std::getline(in, line)) {
    const auto blank = line.find(' ');
    // A last line that was cut off is no value.
    if (blank == std::string::npos || in.eof() || found.size() == most_values)
      return {};
    found.emplace(line.substr(0, blank), line.substr(blank + 1));
  }
  return found;
}

result<void> tuned_file::add(const values& more) const {
  if (path_.empty())
    return {};
  auto all = read();
  for (const auto& [key, value] : more)
    all[key] = value;
  std::error_code failed;
  std::filesystem::create_directories(path_.parent_path(), failed);
  // Whoever reads meanwhile reads the old file whole.
  auto next = path_;
  next += fmt::format(".{}", ::getpid());
  {
    std::ofstream out{next};
    out << format_line << '\n' << about_ << '\n';
    for (const auto& [key, value] : all)
      out << key << ' ' << value << '\n';
    if (!out.flush())
      return fail(errc::io_failure, fmt::format("{}: cannot be written", next.string()));
  }
  std::filesystem::rename(next, path_, failed);
  if (failed)
    return fail(errc::io_failure, fmt::format("{}: {}", path_.string(), failed.message()));
  return {};
}

} // namespace troupe::engine
