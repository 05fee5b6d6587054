#include "tests/bench/cuda_swap.hpp"

#include "engine/exec/cuda/swap_space.hpp"
#include "tests/bench/cuda_bench.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <string_view>
#include <thread>
#include <vector>

namespace troupe::bench {

namespace {

using namespace engine::cuda;
using clock_type = std::chrono::steady_clock;

/// Of 32 layers, each with 16 positions of 8 heads of 128 numbers of 16 bits.
constexpr std::int64_t parts = 64;
constexpr std::int64_t part_bytes = 32 << 10;
constexpr std::uint64_t block_bytes = parts * part_bytes;

void print_rate(std::string_view name, std::uint64_t bytes, stream_ref on,
                const std::function<void()>& enqueue) {
  std::vector<double> times;
  for (int i = 0; i < 9; ++i) {
    const double taken = device_seconds(on, enqueue);
    if (i >= 2)
      times.push_back(taken);
  }
  const double time = median(times);
  fmt::print("swap: {:<28} {:8.3f} ms, {:.1f} GB/s\n", name, time * 1e3,
             static_cast<double>(bytes) / time / 1e9);
}

/// From a launch to the end of the smallest kernel, again and again until `done`.
void print_launches(std::string_view name, stream_ref on, const std::function<bool()>& done) {
  std::vector<double> times;
  while (!done()) {
    const auto begin = clock_type::now();
    must(kernels::cuda::stall(5, on));
    must(wait(on));
    times.push_back(seconds_since(begin));
  }
  if (times.empty())
    return;
  std::ranges::sort(times);
  fmt::print("swap: {} launches {}: median {:.1f} us, 99 % {:.1f} us, longest {:.1f} us\n",
             times.size(), name, 1e6 * times[times.size() / 2],
             1e6 * times[times.size() * 99 / 100], 1e6 * times.back());
}

} // namespace

void measure_swap(std::uint32_t count, std::uint64_t gib) {
  const auto places = static_cast<std::uint32_t>((gib << 30U) / block_bytes);
  count = std::min(count, places);
  const std::uint32_t blocks = 4 * count;
  const auto on = must(make_stream());
  const auto cache = random_buffer(static_cast<std::int64_t>(blocks * block_bytes / 2));
  must(wait(stream_ref{nullptr}));
  const auto begin = clock_type::now();
  const auto space = must(swap_space::make({.places = places,
                                            .cache = cache.data(),
                                            .blocks = blocks,
                                            .parts = parts,
                                            .part_bytes = part_bytes}));
  space->begin();
  fmt::print("swap: {} places are there after {:.3f} ms\n", places, 1e3 * seconds_since(begin));
  const auto locked = [&] { return space->locked_bytes() >= places * block_bytes; };
  const auto late = [&] { return seconds_since(begin) > 60; };
  print_launches("while the space is page-locked", on.get(), [&] { return locked() || late(); });
  fmt::print("swap: {} of {} MiB page-locked after {:.2f} s\n", space->locked_bytes() >> 20U,
             gib << 10U, seconds_since(begin));
  const auto then = clock_type::now();
  print_launches("behind that", on.get(), [&] { return seconds_since(then) > 1; });

  std::vector<engine::block_copy> copies;
  for (std::uint32_t i = 0; i < count; ++i)
    copies.push_back({block_id{i * 7919U % blocks}, host_block{i * 6271U % places}});
  const std::uint64_t bytes = count * block_bytes;
  const auto one_piece = must(pinned_buffer::make(bytes, "one piece"));
  print_rate(fmt::format("save {} blocks", count), bytes, on.get(), [&] {
    must(space->save(copies, on.get()));
    must(space->join(on.get()));
  });
  print_rate("one copy from the GPU", bytes, on.get(),
             [&] { must(download(one_piece.data(), cache.data(), bytes, on.get())); });
  print_rate(fmt::format("restore {} blocks", count), bytes, on.get(),
             [&] { must(space->restore(copies, on.get())); });
  print_rate("one copy to the GPU", bytes, on.get(),
             [&] { must(upload(cache.data(), one_piece.data(), bytes, on.get())); });
}

} // namespace troupe::bench
