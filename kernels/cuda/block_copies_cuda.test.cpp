// Copies of KV blocks to host memory and back. Needs a GPU.
#include "kernels/cuda/testing.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <numeric>
#include <vector>

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::kernels::cuda::testing;

namespace {

struct layout {
  std::int64_t layers;
  std::int64_t blocks;
  std::int64_t block_size;
  std::int64_t kv_heads;
  std::int64_t dim;
  std::int64_t places;
};

/// `count` different numbers below `limit`, in no order.
std::vector<std::uint32_t> some_of(splitmix64& random, std::int64_t limit, std::size_t count) {
  std::vector<std::uint32_t> all(static_cast<std::size_t>(limit));
  std::iota(all.begin(), all.end(), 0U);
  for (std::size_t i = 0; i < count; ++i)
    std::swap(all[i], all[i + random.below(all.size() - i)]);
  all.resize(count);
  return all;
}

} // namespace

TEST_CASE("cuda block copies move blocks of all layers and nothing else") {
  splitmix64 random{21};
  for (const layout& of :
       {layout{1, 1, 16, 1, 16, 1}, layout{2, 7, 16, 3, 8, 5}, layout{3, 40, 48, 2, 40, 33},
        layout{2, 9, 16, 5, 120, 12}, layout{32, 20, 16, 8, 128, 18}, layout{5, 6, 256, 4, 64, 6}})
    for (const dtype type : types) {
      const auto part =
          static_cast<std::size_t>(of.block_size * of.kv_heads * of.dim) * size_of(type);
      const auto parts = static_cast<std::size_t>(2 * of.layers);
      CAPTURE(part, parts, of.blocks);
      auto cached = random_bytes(random, parts * static_cast<std::size_t>(of.blocks) * part);
      const mirror cache{cached};
      const pinned host{static_cast<std::size_t>(of.places) * parts * part};
      const auto count = static_cast<std::size_t>(std::min(of.blocks, of.places));
      const pinned list{count * sizeof(cuda::block_pair)};
      auto* const pairs = static_cast<cuda::block_pair*>(list.data);
      const auto pair_up = [&](std::size_t many) {
        const auto blocks = some_of(random, of.blocks, many);
        const auto places = some_of(random, of.places, many);
        for (std::size_t i = 0; i < many; ++i)
          pairs[i] = {blocks[i], places[i]};
      };
      const auto at_block = [&](const cuda::block_pair& pair, std::size_t p) {
        return (p * static_cast<std::size_t>(of.blocks) + pair.block) * part;
      };
      const auto at_place = [&](const cuda::block_pair& pair, std::size_t p) {
        return (pair.host * parts + p) * part;
      };
      const cuda::block_copies_args args{.cache = cache.as<void>(),
                                         .blocks = of.blocks,
                                         .parts = 2 * of.layers,
                                         .part_bytes = static_cast<std::int64_t>(part),
                                         .host = host.data,
                                         .pairs = pairs,
                                         .count = static_cast<std::int64_t>(count)};
      auto kept = host.bytes();
      pair_up(count);
      fine(cuda::save_blocks(args, nullptr));
      REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
      for (std::size_t i = 0; i < count; ++i)
        for (std::size_t p = 0; p < parts; ++p)
          std::copy_n(cached.data() + at_block(pairs[i], p), part,
                      kept.data() + at_place(pairs[i], p));
      CHECK(host.bytes() == kept);
      auto fewer = args;
      fewer.count = static_cast<std::int64_t>((count + 1) / 2);
      pair_up((count + 1) / 2);
      fine(cuda::restore_blocks(fewer, nullptr));
      for (std::int64_t i = 0; i < fewer.count; ++i)
        for (std::size_t p = 0; p < parts; ++p)
          std::copy_n(kept.data() + at_place(pairs[i], p), part,
                      cached.data() + at_block(pairs[i], p));
      std::vector<std::uint8_t> got(cached.size());
      cache.fetch(got.data());
      CHECK(got == cached);
    }
}

TEST_CASE("cuda block copies refuse what is no whole vector, and do nothing of no blocks") {
  cuda::block_copies_args args{.blocks = 4, .parts = 2, .part_bytes = 24};
  CHECK(cuda::save_blocks(args, nullptr).error().code == errc::bad_shape);
  CHECK(cuda::restore_blocks(args, nullptr).error().code == errc::bad_shape);
  args.part_bytes = 32;
  fine(cuda::save_blocks(args, nullptr));
  fine(cuda::restore_blocks(args, nullptr));
}
