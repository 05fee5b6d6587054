// Ranges of host memory to the device. Needs a GPU.
#include "kernels/cuda/testing.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <vector>

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::kernels::cuda::testing;

TEST_CASE("cuda range copies bring ranges and nothing else") {
  splitmix64 random{31};
  for (const std::size_t size : {64, 4096, 150000, 3000000}) {
    auto wanted = random_bytes(random, size / 16 * 16);
    const mirror to{wanted};
    const pinned host{wanted.size()};
    const auto given = random_bytes(random, wanted.size());
    std::memcpy(host.data, given.data(), given.size());
    cuda::range_copies_args args{.from = host.data, .to = to.as<void>()};
    // Some are empty, and some touch.
    std::array<std::size_t, 8> ends{};
    for (std::size_t& end : ends)
      end = random.below(wanted.size() / 16 + 1) * 16;
    ends[3] = ends[2];
    std::ranges::sort(ends);
    for (std::size_t i = 0; i < std::size(args.ranges); ++i) {
      const std::size_t begin = ends[2 * i], end = ends[2 * i + 1];
      args.ranges[std::size(args.ranges) - 1 - i] = {static_cast<std::int64_t>(begin),
                                                     static_cast<std::int64_t>(end - begin)};
      std::copy_n(given.data() + begin, end - begin, wanted.data() + begin);
    }
    fine(cuda::copy_ranges(args, nullptr));
    std::vector<std::uint8_t> got(wanted.size());
    to.fetch(got.data());
    CAPTURE(size);
    CHECK(got == wanted);
  }
}

TEST_CASE("cuda range copies refuse what is no whole vector, and do nothing of nothing") {
  cuda::range_copies_args args;
  fine(cuda::copy_ranges(args, nullptr));
  args.ranges[1] = {.begin = 16, .bytes = 24};
  CHECK(cuda::copy_ranges(args, nullptr).error().code == errc::bad_shape);
  args.ranges[1] = {.begin = 8, .bytes = 32};
  CHECK(cuda::copy_ranges(args, nullptr).error().code == errc::bad_shape);
}
