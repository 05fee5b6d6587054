// The table of executors: those that are linked in, and those that a library of their own holds.
#include "engine/exec/executor.hpp"

#include "engine/exec/collective.hpp"
#include "engine/exec/cpu_executor.hpp"
#include "engine/exec/plugin.hpp"
#include "engine/exec/simulated.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

namespace troupe::engine {

namespace {

struct executor_kind {
  std::string_view name;
  /// Whether a device may be named behind a colon.
  bool has_devices;
  result<std::unique_ptr<executor>> (*make)(executor_options options, std::string_view device);
};

template <class T>
result<std::unique_ptr<executor>> make(executor_options options, std::string_view) {
  return std::make_unique<T>(std::move(options));
}

constexpr auto cuda_library = "libtroupe_cuda.so";

result<std::unique_ptr<executor>> make_cuda(executor_options options, std::string_view device) {
  return find_plugin(cuda_library).and_then([&](const executor_plugin* plugin) {
    return plugin->make(std::move(options), device);
  });
}

constexpr std::array<executor_kind, 3> kinds{{
    {"cpu", false, make<cpu_executor>},
    {"simulated", false, make<simulated_executor>},
    {"cuda", true, make_cuda},
}};

/// "cuda:0" in its two parts; the second is empty where there is no colon.
std::pair<std::string_view, std::string_view> parts_of(std::string_view kind) {
  const std::size_t colon = std::min(kind.find(':'), kind.size());
  return {kind.substr(0, colon), kind.substr(std::min(colon + 1, kind.size()))};
}

/// What is wrong with the place of a rank among its group, or nothing.
result<void> check_place(const executor_options& options) {
  const auto& group = options.group;
  const bool alone = options.ranks == 1 && options.rank == 0 && !group;
  const bool placed = group && group->rank() == options.rank && group->ranks() == options.ranks;
  if (alone || placed)
    return {};
  return fail(errc::invalid_argument,
              group ? fmt::format("rank {} of {} is given the place of rank {} of {} in a group",
                                  options.rank, options.ranks, group->rank(), group->ranks())
                    : fmt::format("rank {} of {} has no group to exchange in", options.rank,
                                  options.ranks));
}

} // namespace

result<std::unique_ptr<executor>> make_executor(std::string_view kind, executor_options options) {
  if (auto placed = check_place(options); !placed)
    return fail(placed.error());
  const auto [family, device] = parts_of(kind);
  std::vector<std::string_view> names;
  for (const executor_kind& one : kinds) {
    if (one.name == family && (one.has_devices || family == kind))
      return one.make(std::move(options), device);
    names.push_back(one.name);
  }
  return fail(errc::not_found, fmt::format("there is no executor '{}'; these are: {}", kind,
                                           fmt::join(names, ", ")));
}

bool is_lost(std::string_view kind) {
  const auto [family, device] = parts_of(kind);
  if (family != "cuda")
    return false;
  const auto plugin = find_plugin(cuda_library);
  return plugin && (*plugin)->is_lost(device);
}

} // namespace troupe::engine
