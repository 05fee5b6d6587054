// Attention over the paged cache against kernels/reference. Needs a GPU.
#include "kernels/cuda/attention_testing.hpp"
#include "kernels/reference/reference.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::kernels::cuda::testing;

namespace {

/// The whole of one shape: reference, and equal bits however the items are cut. `steep` is how far
/// q goes, and with it how far scores lie apart.
void check_attention(paged_batch b, std::uint64_t seed, float steep = 1.5F) {
  splitmix64 random{seed};
  b.plan(random);
  const std::int64_t width = std::int64_t{b.heads} * b.dim;
  const auto rows = static_cast<std::int64_t>(b.batch.size());
  matrix q{b.type, rows, width, width + 8};
  q.fill(random, steep);
  // What no position owns is NaN: it must not be seen.
  matrix k{b.type, 1, b.cache_elements(), b.cache_elements()};
  std::fill(k.bytes.begin(), k.bytes.end(), std::byte{0xFF});
  matrix v = k;
  std::vector<double> truth;
  for (std::size_t s = 0; s < b.members.size(); ++s) {
    const auto [past, count] = b.members[s];
    std::vector<double> qs, ks, vs;
    for (std::int32_t p = 0; p < past + count; ++p)
      for (std::int64_t h = 0; h < b.kv_heads; ++h) {
        const auto values = random_values(random, 2 * b.dim, 1);
        const std::int64_t at = b.place(b.slot(static_cast<std::int32_t>(s), p), h);
        for (std::int64_t d = 0; d < b.dim; ++d) {
          k.set(0, at + d, values[static_cast<std::size_t>(2 * d)]);
          v.set(0, at + d, values[static_cast<std::size_t>(2 * d + 1)]);
          ks.push_back(k.get(0, at + d));
          vs.push_back(v.get(0, at + d));
        }
      }
    for (std::int64_t i = 0; i < count * width; ++i)
      qs.push_back(q.get(b.sequences[s].row_begin + i / width, i % width));
    const auto part = reference::attention({.rows = count,
                                            .positions = past + count,
                                            .heads = b.heads,
                                            .kv_heads = b.kv_heads,
                                            .dim = b.dim,
                                            .scale = 1 / std::sqrt(static_cast<double>(b.dim))},
                                           qs, ks, vs);
    truth.insert(truth.end(), part.begin(), part.end());
  }
  const mirror dq{q}, dk{k}, dv{v};
  const matrix whole = attend(b, dq, dk, dv, {b, false, false});
  CHECK(cpu::testing::worst_error(whole, truth, 1) < tolerance(b.type));
  if (cuda::attends_by_items({.type = b.type, .dim = b.dim})) {
    // By warpgroups where the head has 128 elements, and by warps.
    for (const bool warpgroups : {true, false}) {
      CAPTURE(warpgroups);
      cuda::shortcuts_taken().warpgroups = warpgroups;
      const matrix wide = attend(b, dq, dk, dv, {b, true, true, cuda::wide_tile_rows});
      CHECK(cpu::testing::worst_error(wide, truth, 1) < tolerance(b.type));
    }
    cuda::shortcuts_taken() = {};
  }
  for (const bool tiles_of_64 : {false, true})
    for (const bool splits : {false, true}) {
      CAPTURE(tiles_of_64, splits);
      CHECK(attend(b, dq, dk, dv, {b, tiles_of_64, splits}).same_bits(whole, 0, 0, rows));
    }
}

} // namespace

TEST_CASE("cuda attention on the tensor cores") {
  TROUPE_EACH_TYPE_OF_16_BITS(type);
  const std::vector<paged_batch::member> mixed{{0, 1},   {0, 70},   {255, 1}, {256, 1}, {700, 1},
                                               {300, 3}, {510, 40}, {63, 2},  {0, 300}};
  for (const std::int32_t dim : {64, 128})
    for (const std::int32_t group : {1, 2, 4, 7, 20}) {
      CAPTURE(dim, group);
      check_attention({type, 2 * group, 2, dim, group == 4 ? 32 : 16, mixed, {}, {}, {}},
                      static_cast<std::uint64_t>(dim + group));
    }
}

TEST_CASE("cuda attention of long decodes") {
  TROUPE_EACH_TYPE_OF_16_BITS(type);
  check_attention({type, 8, 2, 128, 16, {{4095, 1}, {2047, 1}, {3000, 2}}, {}, {}, {}}, 5);
}

TEST_CASE("cuda attention of long prompts") {
  TROUPE_EACH_TYPE_OF_16_BITS(type);
  // Block tables are read 512 positions at a time.
  for (const std::int32_t dim : {64, 128})
    check_attention({type, 8, 2, dim, 16, {{0, 700}, {1000, 90}, {511, 2}, {512, 33}}, {}, {}, {}},
                    static_cast<std::uint64_t>(dim) + 31);
}

TEST_CASE("cuda attention of prompts around whole tiles") {
  TROUPE_EACH_TYPE_OF_16_BITS(type);
  // Tiles of 112 positions and of 128 rows that end with a prompt, before its end and behind it.
  const std::vector<paged_batch::member> edges{{0, 112},  {0, 111}, {0, 113},   {112, 112},
                                               {96, 16},  {0, 128}, {1009, 31}, {0, 225},
                                               {335, 65}, {0, 257}};
  for (const std::int32_t group : {1, 4, 8})
    for (const std::int32_t block_size : {16, 32, 64}) {
      CAPTURE(group, block_size);
      check_attention({type, 2 * group, 2, 128, block_size, edges, {}, {}, {}},
                      static_cast<std::uint64_t>(group + block_size));
    }
}

TEST_CASE("cuda attention of more prompts than blocks") {
  TROUPE_EACH_TYPE_OF_16_BITS(type);
  // Each block of warpgroups takes several items, long ones and short ones.
  splitmix64 random{78};
  std::vector<paged_batch::member> many;
  for (int i = 0; i < 120; ++i)
    many.push_back({static_cast<std::int32_t>(i % 5 == 0 ? random.below(300) : 0),
                    5 + static_cast<std::int32_t>(random.below(i % 9 == 0 ? 250 : 70))});
  check_attention({type, 8, 2, 128, 16, many, {}, {}, {}}, 79);
}

TEST_CASE("cuda attention of scores that lie far apart") {
  TROUPE_EACH_TYPE_OF_16_BITS(type);
  // Rows find greater scores in later tiles, near the greatest one so far and far above it.
  for (const std::int32_t dim : {64, 128})
    for (const float steep : {10.0F, 40.0F}) {
      CAPTURE(dim, steep);
      check_attention({type, 8, 2, dim, 16, {{0, 700}, {300, 65}}, {}, {}, {}}, 41, steep);
    }
}

TEST_CASE("cuda attention of more decodes than warps") {
  TROUPE_EACH_TYPE_OF_16_BITS(type);
  // Each warp walks several items, of all lengths, one ahead of the other.
  splitmix64 random{77};
  std::vector<paged_batch::member> many;
  for (int i = 0; i < 290; ++i)
    many.push_back(
        {static_cast<std::int32_t>(random.below(i % 7 == 0 ? 900 : 300)), 1 + i % 5 / 4});
  for (const std::int32_t dim : {64, 128})
    check_attention({type, 4, 2, dim, 16, many, {}, {}, {}}, static_cast<std::uint64_t>(dim));
}

TEST_CASE("cuda attention by rows") {
  const std::vector<paged_batch::member> mixed{{0, 1}, {0, 30}, {63, 1}, {64, 5}, {200, 1}};
  for (const dtype type : types)
    for (const std::int32_t dim : {2, 16, 32, 80, 200, 512})
      for (const std::int32_t group : {1, 3}) {
        CAPTURE(static_cast<int>(type), dim, group);
        check_attention({type, 2 * group, 2, dim, 16, mixed, {}, {}, {}},
                        static_cast<std::uint64_t>(dim));
      }
}
