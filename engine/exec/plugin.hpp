#pragma once

#include "engine/exec/executor.hpp"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

/// Executors in libraries of their own, opened when they are asked for: so that one binary runs on
/// machines with and without a GPU.
namespace troupe::engine {

/// What a library's one C function answers. The first two members never change their place.
struct executor_plugin {
  /// plugin_api_version of the library's build.
  std::uint64_t api_version = 0;
  /// plugin_build() of the library's build.
  const char* build = nullptr;
  /// Makes an executor of `device`, the part behind the colon of "cuda:0", or "".
  result<std::unique_ptr<executor>> (*make)(executor_options options, std::string_view device);
  /// Whether an error has taken the device from this process for good. What its executors had of
  /// its memory is then given back, and an executor in another process may have it.
  bool (*is_lost)(std::string_view device) = nullptr;
};

/// Counts the changes of executor_plugin, executor and what they refer to.
inline constexpr std::uint64_t plugin_api_version = 5;

/// Tells builds apart that cannot be mixed: version, compiler and sanitizers.
[[nodiscard]] const char* plugin_build() noexcept;

/// The name of the function: `extern "C" const executor_plugin* troupe_executor_plugin()`.
inline constexpr const char* plugin_entry = "troupe_executor_plugin";

/// Opens a library. It stays open until the process ends.
/// @errors not_found: there is no such file; io_failure: it cannot be opened, the note has the
///         system's reason; conflict: it is of another build, or no such library at all
[[nodiscard]] result<const executor_plugin*> open_plugin(const std::filesystem::path& file);

/// Where a library of that name may lie: beside this code, or in the library folder beside the
/// program's own.
[[nodiscard]] std::span<const std::filesystem::path> plugin_folders();

/// Finds the library by its name in plugin_folders(), and opens it.
/// @errors as open_plugin; not_found: names the folders that were looked through
[[nodiscard]] result<const executor_plugin*> find_plugin(const std::string& name);

} // namespace troupe::engine
