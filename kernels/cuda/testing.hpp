#pragma once

#include "kernels/cpu/testing.hpp"
#include "kernels/cuda/ops.hpp"
#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

/// What the tests of the GPU's kernels share.
namespace troupe::kernels::cuda::testing {

/// Waits for all that the device has to do: kernels that begin early read a step's inputs before
/// they wait, and a copy from memory that is not page-locked may still be on its way.
inline void settle() {
  const cudaError_t ran = cudaDeviceSynchronize();
  CAPTURE(cudaGetErrorString(ran));
  REQUIRE(ran == cudaSuccess);
}

/// A copy on the device of what the host has, and back.
class mirror {
public:
  explicit mirror(std::size_t bytes) : bytes_{bytes} {
    REQUIRE(cudaMalloc(&data_, std::max<std::size_t>(bytes, 256)) == cudaSuccess);
    poison();
    settle();
  }
  explicit mirror(const cpu::testing::matrix& from) : mirror{from.bytes.size()} {
    send(from.bytes.data());
  }
  template <class T>
  explicit mirror(const std::vector<T>& from) : mirror{from.size() * sizeof(T)} {
    send(from.data());
  }
  mirror(const mirror&) = delete;
  mirror& operator=(const mirror&) = delete;
  ~mirror() { cudaFree(data_); }

  /// Fills it with NaN, of whatever type, some time before the next kernel begins.
  void poison() const { REQUIRE(cudaMemset(data_, 0xFF, bytes_) == cudaSuccess); }
  void send(const void* from) const {
    REQUIRE(cudaMemcpy(data_, from, bytes_, cudaMemcpyHostToDevice) == cudaSuccess);
    settle();
  }
  void fetch(void* to) const {
    settle();
    REQUIRE(cudaMemcpy(to, data_, bytes_, cudaMemcpyDeviceToHost) == cudaSuccess);
  }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  [[nodiscard]] std::size_t size() const { return bytes_; }

private:
  void* data_ = nullptr;
  std::size_t bytes_;
};

/// Page-locked memory.
struct pinned {
  explicit pinned(std::size_t bytes) : size{bytes} {
    REQUIRE(cudaMallocHost(&data, std::max<std::size_t>(bytes, 16)) == cudaSuccess);
    std::memset(data, 0xEE, bytes);
  }
  pinned(const pinned&) = delete;
  pinned& operator=(const pinned&) = delete;
  ~pinned() { cudaFreeHost(data); }
  [[nodiscard]] std::vector<std::uint8_t> bytes() const {
    const auto* const from = static_cast<const std::uint8_t*>(data);
    return {from, from + size};
  }

  void* data = nullptr;
  std::size_t size;
};

inline std::vector<std::uint8_t> random_bytes(splitmix64& random, std::size_t count) {
  std::vector<std::uint8_t> made(count);
  for (std::uint8_t& byte : made)
    byte = static_cast<std::uint8_t>(random.below(256));
  return made;
}

/// Three roundings or so to the type.
inline double tolerance(dtype type) {
  return type == dtype::f32 ? 2e-5 : type == dtype::bf16 ? 1.2e-2 : 1.5e-3;
}

inline void fine(const result<void>& done) {
  CAPTURE(done ? "" : done.error().note);
  REQUIRE(done);
}

inline std::vector<double> doubles(const std::vector<float>& from) {
  return {from.begin(), from.end()};
}

inline constexpr dtype types[] = {dtype::f32, dtype::bf16, dtype::f16};

/// How many of so many launches leave other bytes in `out` than the first.
template <class Launch>
int count_others(const mirror& out, int launches, Launch launch) {
  const auto make = [&](const pinned& to) {
    out.poison();
    launch();
    out.fetch(to.data);
  };
  const pinned first{out.size()}, again{out.size()};
  make(first);
  int others = 0;
  for (int i = 1; i < launches; ++i) {
    make(again);
    others += std::memcmp(again.data, first.data, out.size()) == 0 ? 0 : 1;
  }
  return others;
}

/// Each type of 16 bits in turn, for a test case.
#define TROUPE_EACH_TYPE_OF_16_BITS(name)                                                          \
  const dtype name = GENERATE(dtype::bf16, dtype::f16);                                            \
  CAPTURE(static_cast<int>(name))

} // namespace troupe::kernels::cuda::testing
