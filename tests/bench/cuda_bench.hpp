#pragma once

#include "engine/exec/cuda/runtime.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <type_traits>
#include <vector>

/// What the benches of the GPU share.
namespace troupe::bench {

/// The value, or the end of the bench with the error's words.
template <class T>
T must(result<T> got) {
  if (!got) {
    fmt::print(stderr, "bench: {}\n", to_string(got.error()));
    std::exit(1);
  }
  if constexpr (!std::is_void_v<T>)
    return std::move(*got);
}

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

/// Bytes per second of reading 4 GiB of random numbers.
inline double read_bandwidth() {
  namespace cuda = engine::cuda;
  constexpr std::int64_t bytes = std::int64_t{4} << 30U;
  const auto memory = must(cuda::device_buffer::make(bytes, "probe"));
  const auto sink = must(cuda::device_buffer::make(256, "probe"));
  must(kernels::cuda::fill_random({.out = memory.data(), .count = bytes / 2, .seed = 1, .sigma = 1},
                                  nullptr));
  std::vector<double> times;
  for (int i = 0; i < 8; ++i) {
    const auto begin = must(cuda::make_event(true));
    const auto end = must(cuda::make_event(true));
    must(cuda::record(begin, nullptr));
    must(kernels::cuda::read_probe(memory.data(), bytes, sink.as<std::uint32_t>(), nullptr));
    must(cuda::record(end, nullptr));
    must(cuda::wait(end));
    times.push_back(must(cuda::milliseconds_between(begin, end)) / 1e3);
  }
  return static_cast<double>(bytes) / median(times);
}

} // namespace troupe::bench
