#pragma once

#include "troupe/base/error.hpp"

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::actors {

/// The keys that open an edge, as hashes: who reads the file or this memory learns no key.
class api_keys {
public:
  /// Lines "sha256:<64 hex digits>  label"; blank lines and lines that begin with # are skipped.
  /// @errors io_failure: cannot be read; corrupt_data: a malformed line (its number is named), or
  /// no key
  [[nodiscard]] static result<api_keys> load(const std::filesystem::path& file);
  [[nodiscard]] static result<api_keys> parse(std::string_view text, std::string_view file);

  /// Whether the value of an Authorization header ("Bearer <key>") names a known key. Takes the
  /// same time whichever key it is and wherever it differs.
  [[nodiscard]] bool allow(std::string_view authorization) const;

  [[nodiscard]] std::size_t size() const noexcept { return hashes_.size(); }

private:
  using digest = std::array<std::uint8_t, 32>;
  std::vector<digest> hashes_;
};

} // namespace troupe::actors
