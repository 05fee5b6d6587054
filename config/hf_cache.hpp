#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "troupe/base/error.hpp"

namespace troupe::config {

/// Where Hugging Face's tools keep what they fetched, by the same variables as they: HF_HUB_CACHE,
/// HF_HOME, XDG_CACHE_HOME, HOME. Empty when none of them is set.
[[nodiscard]] std::filesystem::path
hub_directory(const std::map<std::string, std::string>& environment);

/// Where Troupe keeps what it measured: XDG_CACHE_HOME/troupe or HOME/.cache/troupe. Empty when
/// neither is set.
[[nodiscard]] std::filesystem::path
cache_directory(const std::map<std::string, std::string>& environment);

/// True for what may be the id of a model: "name" or "organisation/name".
[[nodiscard]] bool is_hub_id(std::string_view text) noexcept;

/// The directory of a model's files. `revision` is a branch, a tag or a commit; empty takes main,
/// or the only one there is. Nothing is downloaded.
/// @errors not_found: the cache has not this model, or not this revision; the note says what it has
[[nodiscard]] result<std::filesystem::path>
find_in_hub(const std::filesystem::path& hub, std::string_view id, std::string_view revision);

} // namespace troupe::config
