#include "engine/exec/cuda/runtime.hpp"
#include "engine/exec/cuda/device_use.hpp"
#include "engine/exec/machine.hpp"
#include "troupe/base/log.hpp"

#include <cuda_runtime_api.h>
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <fstream>

namespace troupe::engine::cuda {

result<void> check(int status, std::string_view what) {
  if (status == cudaSuccess)
    return {};
  const auto code = static_cast<cudaError_t>(status);
  return fail(errc::internal, fmt::format("{}: {}", what, cudaGetErrorString(code)));
}

result<device_info> open_device(int index) {
  if (auto good = look_whether_usable(index); !good)
    return fail(good.error());
  int count = 0;
  const cudaError_t counted = cudaGetDeviceCount(&count);
  int driver = 0;
  int wanted = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&wanted);
  if (driver == 0)
    return fail(errc::not_found, fmt::format("cuda:{}: this machine has no NVIDIA driver; use the "
                                             "device \"cpu\" here",
                                             index));
  if (counted == cudaErrorInsufficientDriver || driver / 1000 < wanted / 1000)
    return fail(errc::unsupported,
                fmt::format("cuda:{}: the driver knows CUDA {}.{} and Troupe is built with {}.{}; "
                            "install a newer driver",
                            index, driver / 1000, driver % 1000 / 10, wanted / 1000,
                            wanted % 1000 / 10));
  if (counted != cudaSuccess || count == 0)
    return fail(errc::not_found, fmt::format("cuda:{}: no GPU is visible here ({})", index,
                                             cudaGetErrorString(counted)));
  if (index < 0 || index >= count)
    return fail(errc::not_found, fmt::format("cuda:{}: there are {} GPUs, cuda:0 to cuda:{}", index,
                                             count, count - 1));
  cudaDeviceProp properties{};
  if (auto read = check(cudaGetDeviceProperties(&properties, index), "reading the GPU"); !read)
    return fail(read.error());
  device_info info{.index = index,
                   .name = properties.name,
                   .major = properties.major,
                   .minor = properties.minor,
                   .total_bytes = properties.totalGlobalMem};
  std::memcpy(info.uuid.data(), properties.uuid.bytes, info.uuid.size());
  if (info.major != 9 || info.minor != 0)
    return fail(errc::unsupported,
                fmt::format("cuda:{}: {} has compute capability {}.{}; there are kernels for 9.0 "
                            "(H100, H200)",
                            index, info.name, info.major, info.minor));
  if (auto used = use_device(index); !used)
    return fail(used.error());
  return info;
}

void stay_beside(int index) {
  std::array<char, 32> name{};
  if (cudaDeviceGetPCIBusId(name.data(), name.size(), index) != cudaSuccess)
    return;
  std::string folder{name.data()};
  std::transform(folder.begin(), folder.end(), folder.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  std::ifstream in{fmt::format("/sys/bus/pci/devices/{}/local_cpulist", folder)};
  std::string list;
  if (std::getline(in, list))
    if (const unsigned cores = stay_on(cores_in(list)); cores > 0)
      log_debug("cuda:{}: its thread stays on {} cores beside it ({})", index, cores, list);
}

result<void> use_device(int index) {
  const cudaError_t status = cudaSetDevice(index);
  if (status == cudaErrorDevicesUnavailable)
    return fail(errc::io_failure,
                fmt::format("cuda:{} is busy: another process has it for itself, or its compute "
                            "mode forbids its use (nvidia-smi shows both); end that process, or "
                            "name another device",
                            index));
  return check(status, fmt::format("cuda:{} cannot be used", index));
}

result<std::uint64_t> free_bytes() {
  std::size_t free = 0;
  std::size_t total = 0;
  if (auto asked = check(cudaMemGetInfo(&free, &total), "asking for free memory"); !asked)
    return fail(asked.error());
  return free;
}

template <bool OfHost>
cuda_memory<OfHost>::~cuda_memory() {
  if (data_ != nullptr && !borrowed_)
    static_cast<void>(OfHost ? cudaFreeHost(data_) : cudaFree(data_));
}

template <bool OfHost>
result<cuda_memory<OfHost>> cuda_memory<OfHost>::make(std::size_t bytes, std::string_view what) {
  cuda_memory made;
  const cudaError_t status =
      OfHost ? cudaMallocHost(&made.data_, bytes) : cudaMalloc(&made.data_, bytes);
  if (status == cudaSuccess) {
    made.bytes_ = bytes;
    return made;
  }
  made.data_ = nullptr;
  cudaGetLastError();
  const auto left = free_bytes();
  return fail(errc::out_of_memory,
              fmt::format("{}: {} MiB of {} memory are not to be had ({}); {} MiB of the GPU are "
                          "free",
                          what, bytes >> 20U, OfHost ? "page-locked" : "GPU",
                          cudaGetErrorString(status), left.value_or(0) >> 20U));
}

template class cuda_memory<false>;
template class cuda_memory<true>;

void stream_closer::operator()(CUstream_st* stream) const noexcept {
  static_cast<void>(cudaStreamDestroy(stream));
}

void event_closer::operator()(CUevent_st* event) const noexcept {
  static_cast<void>(cudaEventDestroy(event));
}

result<stream> make_stream() {
  cudaStream_t made = nullptr;
  if (auto good = check(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "a stream"); !good)
    return fail(good.error());
  return stream{made};
}

result<event> make_event(bool timed) {
  cudaEvent_t made = nullptr;
  const unsigned flags = timed ? cudaEventDefault : cudaEventDisableTiming;
  if (auto good = check(cudaEventCreateWithFlags(&made, flags), "an event"); !good)
    return fail(good.error());
  return event{made};
}

result<void> record(const event& mark, stream_ref on) {
  return check(cudaEventRecord(mark.get(), on), "marking a step");
}

result<void> follow(const event& mark, stream_ref on) {
  return check(cudaStreamWaitEvent(on, mark.get()), "waiting for another stream");
}

bool passed(const event& mark) noexcept {
  if (cudaEventQuery(mark.get()) != cudaErrorNotReady)
    return true;
  // It is no error, and none that a launch behind it should find.
  static_cast<void>(cudaGetLastError());
  return false;
}

bool capturing(stream_ref on) noexcept {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(on, &status) == cudaSuccess && status != cudaStreamCaptureStatusNone;
}

result<void> wait(const event& mark) {
  return check(cudaEventSynchronize(mark.get()), "waiting for the GPU");
}

result<void> wait(stream_ref all) {
  return check(cudaStreamSynchronize(all), "waiting for the GPU");
}

result<float> milliseconds_between(const event& begin, const event& end) {
  float time = 0;
  if (auto asked = check(cudaEventElapsedTime(&time, begin.get(), end.get()), "timing"); !asked)
    return fail(asked.error());
  return time;
}

result<void> upload(void* to, const void* from, std::size_t bytes, stream_ref on) {
  return check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, on), "copying to the GPU");
}

result<void> download(void* to, const void* from, std::size_t bytes, stream_ref on) {
  return check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, on),
               "copying from the GPU");
}

} // namespace troupe::engine::cuda
