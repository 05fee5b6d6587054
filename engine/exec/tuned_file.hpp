#pragma once

#include "troupe/base/error.hpp"

#include <filesystem>
#include <map>
#include <string>

namespace troupe::engine {

/// What was measured once and holds for later starts: keys and values without blanks, in a file of
/// lines. Several processes may read and write it at the same time; the last one to write wins.
class tuned_file {
public:
  using values = std::map<std::string, std::string>;

  /// `about` says what the values hold for, such as a device and a library's version; it chooses
  /// the file in `directory`. An empty directory keeps nothing.
  tuned_file(const std::filesystem::path& directory, std::string about);

  /// What is there; nothing where there is no file, or it is damaged or about something else.
  [[nodiscard]] values read() const;

  /// Adds `more` to what is there.
  /// @errors io_failure: the directory or the file cannot be written
  [[nodiscard]] result<void> add(const values& more) const;

  /// Empty where nothing is kept.
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

private:
  std::string about_;
  std::filesystem::path path_;
};

} // namespace troupe::engine
