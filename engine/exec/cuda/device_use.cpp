#include "engine/exec/cuda/device_use.hpp"

#include <cuda_runtime_api.h>
#include <fmt/core.h>

#include <map>
#include <mutex>
#include <string>
#include <utility>

namespace troupe::engine::cuda {

namespace {

struct device_state {
  int uses = 0;
  /// The error that spoiled its context; empty where none has.
  std::string spoiled_by;
  bool given_back = false;
};

/// One for the process, as the contexts are that it tells of.
struct all_devices {
  std::mutex mutex;
  std::map<int, device_state> of;
};
all_devices& devices() {
  static all_devices all;
  return all;
}

} // namespace

device_use::device_use(int index) : index_{index} {
  const std::lock_guard lock{devices().mutex};
  ++devices().of[index].uses;
}

device_use::device_use(device_use&& other) noexcept : index_{std::exchange(other.index_, -1)} {}

device_use& device_use::operator=(device_use&& other) noexcept {
  std::swap(index_, other.index_);
  return *this;
}

device_use::~device_use() {
  if (index_ < 0)
    return;
  const std::lock_guard lock{devices().mutex};
  --devices().of[index_].uses;
}

void look_for_spoil(int index) {
  // Of any other error this is the end.
  static_cast<void>(cudaGetLastError());
  static_cast<void>(cudaSetDevice(index));
  const cudaError_t status = cudaStreamQuery(nullptr);
  const bool captures =
      status >= cudaErrorStreamCaptureUnsupported && status <= cudaErrorStreamCaptureWrongThread;
  if (status == cudaSuccess || status == cudaErrorNotReady || captures)
    return;
  const std::lock_guard lock{devices().mutex};
  devices().of[index].spoiled_by = cudaGetErrorString(status);
}

bool is_spoiled(int index) noexcept {
  const std::lock_guard lock{devices().mutex};
  const auto at = devices().of.find(index);
  return at != devices().of.end() && !at->second.spoiled_by.empty();
}

result<void> look_whether_usable(int index) {
  const std::lock_guard lock{devices().mutex};
  const auto at = devices().of.find(index);
  if (at == devices().of.end() || at->second.spoiled_by.empty())
    return {};
  device_state& device = at->second;
  const auto why =
      fmt::format("cuda:{}: an error of the device ({}) has spoiled it for this process", index,
                  device.spoiled_by);
  if (device.uses > 0)
    return fail(errc::busy, fmt::format("{}, and {} there use it still", why, device.uses));
  if (!std::exchange(device.given_back, true)) {
    static_cast<void>(cudaSetDevice(index));
    static_cast<void>(cudaDeviceReset());
    static_cast<void>(cudaGetLastError());
  }
  return fail(errc::internal, fmt::format("{}; another process can use it", why));
}

bool is_lost(int index) noexcept {
  const std::lock_guard lock{devices().mutex};
  const auto at = devices().of.find(index);
  return at != devices().of.end() && at->second.given_back;
}

} // namespace troupe::engine::cuda
