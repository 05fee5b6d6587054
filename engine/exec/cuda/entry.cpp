// The one function of libtroupe_cuda.so.
#include "engine/exec/cuda/cuda_executor.hpp"
#include "engine/exec/cuda/device_use.hpp"
#include "engine/exec/plugin.hpp"

#include <fmt/core.h>

#include <charconv>

namespace troupe::engine::cuda {

namespace {

result<int> index_of(std::string_view device) {
  int index = 0;
  const char* const end = device.data() + device.size();
  if (!device.empty())
    if (const auto [at, code] = std::from_chars(device.data(), end, index);
        code != std::errc{} || at != end || index < 0)
      return fail(errc::invalid_argument,
                  fmt::format("'{}' is not the number of a GPU; write \"cuda:0\"", device));
  return index;
}

result<std::unique_ptr<executor>> make(executor_options options, std::string_view device) {
  auto found = index_of(device).and_then(open_device);
  if (!found)
    return fail(found.error());
  return std::make_unique<cuda_executor>(std::move(options), std::move(*found));
}

bool is_lost_device(std::string_view device) {
  const auto index = index_of(device);
  return index && is_lost(*index);
}

} // namespace

} // namespace troupe::engine::cuda

extern "C" const troupe::engine::executor_plugin* troupe_executor_plugin() {
  static const troupe::engine::executor_plugin plugin{
      .api_version = troupe::engine::plugin_api_version,
      .build = troupe::engine::plugin_build(),
      .make = troupe::engine::cuda::make,
      .is_lost = troupe::engine::cuda::is_lost_device};
  return &plugin;
}
