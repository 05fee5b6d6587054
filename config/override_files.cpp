#include "config/override_files.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "config/text.hpp"

namespace troupe::config {

namespace {

constexpr std::size_t most_files = 1024;

/// "<version>/<path>", without a segment that leads out or hides.
bool is_version_path(const std::string& text) {
  const std::filesystem::path path{text};
  if (!is_clean_text(text) || text.size() > 1024 || path.is_absolute())
    return false;
  const auto segments = std::distance(path.begin(), path.end());
  const auto bad = [](const std::filesystem::path& part) {
    return part.empty() || part.native().front() == '.';
  };
  return segments >= 2 && std::none_of(path.begin(), path.end(), bad);
}

class owned_directory {
public:
  explicit owned_directory(std::filesystem::path path) : path_{std::move(path)} {}
  ~owned_directory() {
    std::error_code ec;
    std::filesystem::remove_all(path_, ec);
  }
  owned_directory(const owned_directory&) = delete;
  owned_directory& operator=(const owned_directory&) = delete;

private:
  std::filesystem::path path_;
};

} // namespace

result<override_repository> write_override_files(const std::string& model,
                                                 const model_overrides& overrides) {
  if (!overrides.config)
    return fail(
        errc::invalid_argument,
        fmt::format("the load request of '{}' brings files without `config`; add it", model));
  if (overrides.files.size() > most_files)
    return fail(errc::limit_exceeded, fmt::format("at most {} files are taken", most_files));
  if (model.empty() || model.front() == '.' || model.find('/') != std::string::npos ||
      !is_clean_text(model))
    return fail(errc::not_found, fmt::format("there is no model {}", in_quotes(model)));
  for (const auto& [name, content] : overrides.files) {
    if (!is_version_path(name))
      return fail(errc::invalid_argument,
                  fmt::format("file:{} is not <version>/<path> within the model", in_quotes(name)));
  }
  std::error_code ec;
  auto name = (std::filesystem::temp_directory_path(ec) / "troupe-model-XXXXXX").string();
  if (ec || ::mkdtemp(name.data()) == nullptr)
    return fail(errc::io_failure,
                fmt::format("no directory for the files of '{}': {}", model, std::strerror(errno)));
  override_repository out{name, std::make_shared<const owned_directory>(name)};
  for (const auto& [path, content] : overrides.files) {
    const auto file = out.repository / model / path;
    std::filesystem::create_directories(file.parent_path(), ec);
    std::ofstream stream{file, std::ios::binary};
    stream << content;
    stream.close();
    if (!stream)
      return fail(errc::io_failure, fmt::format("{} cannot be written", file.string()));
  }
  return out;
}

} // namespace troupe::config
