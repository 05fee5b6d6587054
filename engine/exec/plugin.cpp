#include "engine/exec/plugin.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <dlfcn.h>

#include <algorithm>
#include <vector>

namespace troupe::engine {

namespace fs = std::filesystem;

namespace {

/// The file that this code was loaded from: the program, or libtroupe.so.
fs::path own_file() {
  Dl_info info{};
  // The address of a function of this file tells which loaded file holds it.
  const auto address = reinterpret_cast<const void*>(&plugin_build);
  if (dladdr(address, &info) == 0 || info.dli_fname == nullptr)
    return {};
  std::error_code ignored;
  return fs::canonical(info.dli_fname, ignored);
}

std::vector<fs::path> find_folders() {
  std::error_code ignored;
  std::vector<fs::path> folders;
  for (const fs::path& file : {own_file(), fs::read_symlink("/proc/self/exe", ignored)}) {
    if (file.empty())
      continue;
    const fs::path here = file.parent_path();
    for (const fs::path& folder :
         {here, here / ".." / "lib", here / ".." / TROUPE_INSTALL_LIBDIR}) {
      const fs::path clean = folder.lexically_normal();
      if (std::find(folders.begin(), folders.end(), clean) == folders.end())
        folders.push_back(clean);
    }
  }
  return folders;
}

} // namespace

const char* plugin_build() noexcept { return TROUPE_BUILD_IDENTITY; }

result<const executor_plugin*> open_plugin(const fs::path& file) {
  std::error_code ignored;
  if (!fs::exists(file, ignored))
    return fail(errc::not_found, fmt::format("there is no {}", file.string()));
  void* const library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const reason = dlerror();
    return fail(errc::io_failure,
                fmt::format("{} cannot be opened: {}; the CUDA libraries that it names must be "
                            "where the system's loader looks",
                            file.string(), reason == nullptr ? "no reason given" : reason));
  }
  using entry = const executor_plugin* (*)();
  const auto get = reinterpret_cast<entry>(dlsym(library, plugin_entry));
  const executor_plugin* const plugin = get == nullptr ? nullptr : get();
  if (plugin == nullptr)
    return fail(errc::conflict, fmt::format("{} has no function {}; it is no library of executors",
                                            file.string(), plugin_entry));
  if (plugin->api_version != plugin_api_version ||
      std::string_view{plugin->build} != plugin_build())
    return fail(errc::conflict,
                fmt::format("{} is of another build: interface {} of '{}', and this program has "
                            "interface {} of '{}'; install both from one build",
                            file.string(), plugin->api_version, plugin->build, plugin_api_version,
                            plugin_build()));
  return plugin;
}

std::span<const fs::path> plugin_folders() {
  static const std::vector<fs::path> folders = find_folders();
  return folders;
}

result<const executor_plugin*> find_plugin(const std::string& name) {
  std::vector<std::string> looked;
  std::error_code ignored;
  for (const fs::path& folder : plugin_folders()) {
    if (fs::exists(folder / name, ignored))
      return open_plugin(folder / name);
    looked.push_back(folder.string());
  }
  return fail(
      errc::not_found,
      fmt::format("there is no {} in {}; build it where nvcc is found (cmake --preset cuda) "
                  "and install it beside the program, or use the device \"cpu\"",
                  name, fmt::join(looked, ", ")));
}

} // namespace troupe::engine
