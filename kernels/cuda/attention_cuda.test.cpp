// Attention over the paged cache, and what writes it, against kernels/reference. Needs a GPU.
#include "kernels/cuda/testing.hpp"
#include "kernels/reference/reference.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::kernels::cuda::testing;
using cpu::testing::matrix;
using cpu::testing::random_values;

namespace {

/// Sequences of random lengths on shuffled blocks, with q, k and v for all their positions.
struct paged_batch {
  struct member {
    std::int32_t past;
    std::int32_t rows;
  };

  dtype type;
  std::int32_t heads, kv_heads, dim, block_size;
  std::vector<member> members;
  std::vector<cuda::batch_row> batch;
  std::vector<cuda::sequence_rows> sequences;
  std::vector<std::int32_t> tables;
  std::int64_t blocks = 0;

  void plan(splitmix64& random) {
    for (const member& m : members)
      blocks += (m.past + m.rows + block_size - 1) / block_size;
    blocks += 3;
    std::vector<std::int32_t> free(static_cast<std::size_t>(blocks));
    std::iota(free.begin(), free.end(), 0);
    for (std::size_t i = free.size(); i > 1; --i)
      std::swap(free[i - 1], free[random.below(i)]);
    for (const member& m : members) {
      const auto index = static_cast<std::int32_t>(sequences.size());
      const auto first = static_cast<std::int32_t>(tables.size());
      sequences.push_back({static_cast<std::int32_t>(batch.size()), m.rows, m.past, first});
      for (std::int32_t p = 0; p < m.past + m.rows; ++p) {
        if (p % block_size == 0) {
          tables.push_back(free.back());
          free.pop_back();
        }
        if (p >= m.past)
          batch.push_back({0, p, index, slot(index, p)});
      }
    }
  }
  std::int32_t slot(std::int32_t sequence, std::int32_t position) const {
    const auto at = sequences[static_cast<std::size_t>(sequence)].table_begin;
    return tables[static_cast<std::size_t>(at + position / block_size)] * block_size +
           position % block_size;
  }
  std::int64_t place(std::int64_t slot, std::int64_t kv_head) const {
    return ((slot / block_size * kv_heads + kv_head) * block_size + slot % block_size) * dim;
  }
  std::int64_t cache_elements() const { return blocks * kv_heads * block_size * dim; }
};

/// Items as the executor makes them: all by 16 rows (with splits or whole), or by 64 where many.
struct items {
  std::vector<cuda::attention_item> prefill, decode, join;
  std::int32_t partials = 0;
  std::int32_t prefill_rows = cuda::prefill_tile_rows;
  /// What makes q of the rows first, in the same kernel, and how many warps share an item there.
  const cuda::rope_store_args* turn = nullptr;
  int team = 1;
  /// q of prompts, where they are turned in attention.
  cuda::raw_queries raw;

  items(const paged_batch& b, bool prompts, bool splits,
        std::int32_t tile_rows = cuda::prefill_tile_rows)
      : prefill_rows{tile_rows} {
    const std::int32_t group = b.heads / b.kv_heads;
    for (std::int32_t s = 0; s < static_cast<std::int32_t>(b.members.size()); ++s) {
      const auto& m = b.members[static_cast<std::size_t>(s)];
      const std::int32_t rows = m.rows * group;
      if (prompts && rows > 16) {
        for (std::int32_t at = 0; at < rows; at += tile_rows)
          prefill.push_back({s, at, -1, -1});
        continue;
      }
      for (std::int32_t at = 0; at < rows; at += cuda::decode_tile_rows) {
        // A tile has the splits that its last row sees.
        const std::int32_t last =
            m.past + (std::min(at + cuda::decode_tile_rows, rows) - 1) / group;
        const std::int32_t count = last / cuda::split_positions + 1;
        if (!splits || count == 1) {
          decode.push_back({s, at, -1, -1});
          continue;
        }
        join.push_back({s, at, count, partials});
        for (std::int32_t i = 0; i < count; ++i)
          decode.push_back({s, at, i, partials++});
      }
    }
  }
};

cuda::kv_cache cache_of(const paged_batch& b, const mirror& k, const mirror& v) {
  return {.k = k.as<void>(),
          .v = v.as<void>(),
          .type = b.type,
          .blocks = b.blocks,
          .block_size = b.block_size,
          .kv_heads = b.kv_heads,
          .dim = b.dim};
}

/// Attention of one batch, as often as wanted.
class attention_run {
public:
  attention_run(const paged_batch& b, const mirror& q, const mirror& k, const mirror& v,
                const items& by)
      : by_{by}, type_{b.type}, rows_{static_cast<std::int64_t>(b.batch.size())},
        width_{std::int64_t{b.heads} * b.dim}, out_{static_cast<std::size_t>(rows_ * (width_ + 8)) *
                                                    size_of(b.type)},
        batch_{b.batch}, sequences_{b.sequences}, tables_{b.tables}, prefill_{by.prefill},
        decode_{by.decode}, join_{by.join}, counts_{std::vector<std::int32_t>{
                                                static_cast<std::int32_t>(by.decode.size()),
                                                static_cast<std::int32_t>(by.join.size()), 0}},
        partials_{static_cast<std::size_t>(by.partials + 1) *
                  static_cast<std::size_t>(b.kv_heads * cuda::partial_floats(b.dim)) * 4},
        args_{.q = by.turn == nullptr ? q.as<void>() : nullptr,
              .q_stride = width_ + 8,
              .heads = b.heads,
              .cache = cache_of(b, k, v),
              .rows = rows_,
              .batch = batch_.as<cuda::batch_row>(),
              .sequences = sequences_.as<cuda::sequence_rows>(),
              .block_tables = tables_.as<std::int32_t>(),
              .prefill = prefill_.as<cuda::attention_item>(),
              .prefill_items = static_cast<std::int64_t>(by.prefill.size()),
              .prefill_rows = by.prefill_rows,
              .decode = decode_.as<cuda::attention_item>(),
              .decode_count = counts_.as<std::int32_t>(),
              .join = join_.as<cuda::attention_item>(),
              .join_count = counts_.as<std::int32_t>() + 1,
              .decode_items_max = static_cast<std::int64_t>(by.decode.size()),
              .join_items_max = static_cast<std::int64_t>(by.join.size()),
              .partials = partials_.as<float>(),
              .taken = counts_.as<std::int32_t>() + 2,
              .raw = by.raw,
              .scale = 1.0F / std::sqrt(static_cast<float>(b.dim)),
              .out = out_.as<void>(),
              .out_stride = width_ + 8} {}

  matrix go() {
    launch();
    matrix out{type_, rows_, width_, width_ + 8};
    out_.fetch(out.bytes.data());
    std::vector<std::int32_t> counts(3);
    counts_.fetch(counts.data());
    CHECK(counts[2] == 0);
    // Nothing is written between the rows.
    const auto bytes_of = [&](std::int64_t elements) {
      return static_cast<std::ptrdiff_t>(elements) * static_cast<std::ptrdiff_t>(size_of(type_));
    };
    for (std::int64_t row = 0; row < rows_; ++row) {
      const auto behind = out.bytes.begin() + bytes_of(row * out.stride + width_);
      CHECK(std::all_of(behind, behind + bytes_of(8),
                        [](std::byte x) { return x == std::byte{0xFF}; }));
    }
    return out;
  }

  /// How many of so many launches bring other bits than the first.
  int others(int launches) {
    return count_others(out_, launches, [&] { launch(); });
  }

private:
  /// Starts from NaN, where anything is to be written.
  void launch() {
    out_.poison();
    partials_.poison();
    fine(by_.turn == nullptr ? cuda::attention(args_, nullptr)
                             : cuda::turned_attention(args_, *by_.turn, by_.team, nullptr));
  }

  items by_;
  dtype type_;
  std::int64_t rows_, width_;
  mirror out_, batch_, sequences_, tables_, prefill_, decode_, join_, counts_, partials_;
  cuda::attention_args args_;
};

matrix attend(const paged_batch& b, const mirror& q, const mirror& k, const mirror& v,
              const items& by) {
  return attention_run{b, q, k, v, by}.go();
}

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

// What goes wrong once in twenty thousand times: not for every run of the tests.
TEST_CASE("cuda attention has the same bits whenever it is made", "[.][again]") {
  splitmix64 random{23};
  const std::vector<paged_batch::member> members{{0, 700}, {1000, 90}, {511, 2}, {512, 33}};
  for (const std::int32_t dim : {64, 128}) {
    paged_batch b{dtype::bf16, 8, 2, dim, 16, members, {}, {}, {}};
    b.plan(random);
    const std::int64_t width = std::int64_t{b.heads} * dim;
    matrix q{b.type, static_cast<std::int64_t>(b.batch.size()), width, width + 8};
    q.fill(random, 1.5F);
    matrix k{b.type, 1, b.cache_elements(), b.cache_elements()}, v = k;
    k.fill(random, 1);
    v.fill(random, 1);
    const mirror dq{q}, dk{k}, dv{v};
    struct cut {
      bool prompts, splits;
      std::int32_t tile_rows;
      int launches;
    };
    for (const cut& one : {cut{false, true, cuda::prefill_tile_rows, 60'000},
                           {false, false, cuda::prefill_tile_rows, 5'000},
                           {true, true, cuda::prefill_tile_rows, 5'000},
                           {true, true, cuda::wide_tile_rows, 5'000}}) {
      CAPTURE(dim, one.prompts, one.splits, one.tile_rows);
      attention_run run{b, dq, dk, dv, {b, one.prompts, one.splits, one.tile_rows}};
      CHECK(run.others(one.launches) == 0);
    }
  }
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

TEST_CASE("cuda rope_store norms, turns and stores") {
  splitmix64 random{9};
  for (const dtype type : types)
    for (const std::int32_t dim : {16, 64, 128, 200})
      for (const int shape : {0, 1, 2, 3, 4, 5, 6, 7}) {
        // Rows of q on multiples of 16 bytes, as the wide kernel wants them, or not.
        const bool norms = shape % 2 == 1;
        const std::int64_t apart = shape % 4 < 2 ? 2 : 8;
        const bool in_parts = shape >= 4;
        CAPTURE(static_cast<int>(type), dim, norms, apart, in_parts);
        paged_batch b{type, 6, 2, dim, 16, {{3, 9}, {30, 1}}, {}, {}, {}};
        b.plan(random);
        const std::int64_t rows = 10, half = dim / 2;
        const std::int64_t width = std::int64_t{b.heads + 2 * b.kv_heads} * dim;
        matrix qkv{type, rows, width, width + 8}, q{type, rows, 6 * dim, 6 * dim + apart};
        qkv.fill(random, 1);
        const auto q_norm = random_values(random, dim, 1), k_norm = random_values(random, dim, 1);
        std::vector<float> cos, sin;
        for (std::int64_t i = 0; i < 40 * half; ++i) {
          const double angle = static_cast<double>(i / half) *
                               std::pow(1e4, -2.0 * static_cast<double>(i % half) / dim);
          cos.push_back(static_cast<float>(std::cos(angle)));
          sin.push_back(static_cast<float>(std::sin(angle)));
        }
        matrix k{type, 1, b.cache_elements(), b.cache_elements()}, v = k;
        b.batch[4].slot = -1;
        const mirror dx{qkv}, dq{q}, dk{k}, dv{v}, c{cos}, s{sin}, qn{q_norm}, kn{k_norm};
        const mirror batch{b.batch};
        const cuda::rope_store_args whole{.qkv = dx.as<void>(),
                                          .qkv_stride = width + 8,
                                          .heads = 6,
                                          .cache = cache_of(b, dk, dv),
                                          .batch = batch.as<cuda::batch_row>(),
                                          .rows = rows,
                                          .q_norm = norms ? qn.as<float>() : nullptr,
                                          .k_norm = norms ? kn.as<float>() : nullptr,
                                          .eps = 1e-6F,
                                          .cos = c.as<float>(),
                                          .sin = s.as<float>(),
                                          .q = dq.as<void>(),
                                          .q_stride = 6 * dim + apart};
        if (in_parts) {
          cuda::rope_store_args queries = whole, others = whole;
          queries.cache.kv_heads = 0;
          others.heads = 0;
          others.qkv = dx.as<std::byte>() + size_of(type) * static_cast<std::size_t>(6 * dim);
          fine(cuda::rope_store(queries, nullptr));
          fine(cuda::rope_store(others, nullptr));
        } else {
          fine(cuda::rope_store(whole, nullptr));
        }
        dq.fetch(q.bytes.data());
        dk.fetch(k.bytes.data());
        dv.fetch(v.bytes.data());
        double worst = 0;
        for (std::int64_t row = 0; row < rows; ++row)
          for (std::int64_t head = 0; head < 10; ++head) {
            std::vector<double> x;
            for (std::int64_t d = 0; d < dim; ++d)
              x.push_back(qkv.get(row, head * dim + d));
            const auto& at = b.batch[static_cast<std::size_t>(row)];
            if (head < 8 && norms)
              x = reference::rms_norm(x, doubles(head < 6 ? q_norm : k_norm), 1e-6);
            if (head < 8)
              x = reference::rope(x, at.position, dim, 1e4);
            if (head >= 6 && at.slot < 0)
              continue;
            for (std::int64_t d = 0; d < dim; ++d) {
              const float got = head < 6   ? q.get(row, head * dim + d)
                                : head < 8 ? k.get(0, b.place(at.slot, head - 6) + d)
                                           : v.get(0, b.place(at.slot, head - 8) + d);
              const double wanted = x[static_cast<std::size_t>(d)];
              const double off = std::abs(got - wanted) / (1 + std::abs(wanted));
              worst = std::isnan(off) ? 1e9 : std::max(worst, off);
            }
          }
        CHECK(worst < tolerance(type));
      }
}

namespace {

/// Random qkv of a batch with all that rope takes, and a cache: what rope_store() and attention()
/// make of them is what kernels that do both are held to.
struct rope_inputs {
  const paged_batch& b;
  bool norms;
  std::int64_t rows = static_cast<std::int64_t>(b.batch.size());
  std::int64_t width = std::int64_t{b.heads} * b.dim;
  std::int64_t all = width + 2 * std::int64_t{b.kv_heads} * b.dim;
  matrix qkv{b.type, rows, all, all + 8};
  /// NaN, to be written.
  matrix q{b.type, rows, width, width + 8};
  matrix k{b.type, 1, b.cache_elements(), b.cache_elements()};
  matrix v = k;
  mirror dx, batch{b.batch}, q_norm, k_norm, cos, sin;

  rope_inputs(const paged_batch& of, bool with_norms, splitmix64& random)
      : b{of}, norms{with_norms}, dx{filled(qkv, random)}, q_norm{random_values(random, b.dim, 1)},
        k_norm{random_values(random, b.dim, 1)}, cos{random_values(random, positions * b.dim / 2,
                                                                   1)},
        sin{random_values(random, positions * b.dim / 2, 1)} {
    std::fill(q.bytes.begin(), q.bytes.end(), std::byte{0xFF});
    k.fill(random, 1);
    v.fill(random, 1);
  }

  cuda::rope_store_args args(const mirror& to_q, const mirror& to_k, const mirror& to_v) const {
    return {.qkv = dx.as<void>(),
            .qkv_stride = all + 8,
            .heads = b.heads,
            .cache = cache_of(b, to_k, to_v),
            .batch = batch.as<cuda::batch_row>(),
            .rows = rows,
            .q_norm = norms ? q_norm.as<float>() : nullptr,
            .k_norm = norms ? k_norm.as<float>() : nullptr,
            .eps = 1e-6F,
            .cos = cos.as<float>(),
            .sin = sin.as<float>(),
            .q = to_q.as<void>(),
            .q_stride = width + 8};
  }

private:
  static constexpr std::int64_t positions = 4401;
  static matrix& filled(matrix& x, splitmix64& random) {
    x.fill(random, 1);
    return x;
  }
};

} // namespace

TEST_CASE("cuda turned attention is rope_store and attention in one") {
  TROUPE_EACH_TYPE_OF_16_BITS(type);
  splitmix64 random{17};
  // One page, a part of one, the first position of a block, a page for each warp, more than a warp
  // has slots, whole splits, and more positions than warps read block tables for at a time.
  std::vector<std::vector<std::int32_t>> pasts{
      {0}, {5, 63}, {64, 15}, {16, 130}, {255, 256, 257}, {500}, {1100, 3}, {4400, 511, 512}};
  // As many items as teams of four, two and one warps find, and more than there are warps.
  for (const std::size_t count : {80, 150, 300, 600}) {
    std::vector<std::int32_t> lengths{1023, 769, 512};
    while (lengths.size() < count)
      lengths.push_back(static_cast<std::int32_t>(random.below(70)));
    pasts.push_back(lengths);
  }
  for (const auto& lengths : pasts)
    for (const std::int32_t dim : {64, 128})
      for (const std::int32_t group : {1, 2, 5, 20})
        for (const int shape : {0, 1, 2, 3}) {
          const bool norms = shape % 2 == 1, splits = shape >= 2;
          CAPTURE(lengths, dim, group, norms, splits);
          if (lengths.size() > 50 && (group != 5 || norms != splits))
            continue;
          paged_batch b{type, 2 * group, 2, dim, group == 2 ? 32 : 16, {}, {}, {}, {}};
          for (const std::int32_t past : lengths)
            b.members.push_back({past, 1});
          b.plan(random);
          const rope_inputs in{b, norms, random};
          const mirror dq{in.q}, dk{in.k}, dv{in.v}, other_k{in.k}, other_v{in.v};
          items by{b, false, splits};
          const cuda::rope_store_args rope = in.args(dq, dk, dv);
          fine(cuda::rope_store(rope, nullptr));
          const matrix wanted = attend(b, dq, dk, dv, by);
          by.turn = &rope;
          for (by.team = cuda::turned_team(rope.cache, static_cast<std::int64_t>(by.decode.size()));
               by.team > 0; by.team /= 2) {
            CAPTURE(by.team);
            const matrix got = attend(b, dq, other_k, other_v, by);
            CHECK(cpu::testing::worst_error(got, wanted.doubles(), 1) < tolerance(type));
          }
          // The row's own k and v are in the cache, and nothing else of it has changed.
          matrix k = in.k, v = in.v, k_got = k, v_got = v;
          dk.fetch(k.bytes.data());
          dv.fetch(v.bytes.data());
          other_k.fetch(k_got.bytes.data());
          other_v.fetch(v_got.bytes.data());
          CHECK(cpu::testing::worst_error(k_got, k.doubles(), 1) < tolerance(type));
          CHECK(v_got.bytes == v.bytes);
        }
}

TEST_CASE("cuda turned attention has the same bits whenever it is made", "[.][again]") {
  splitmix64 random{25};
  for (const std::int32_t dim : {64, 128})
    for (const std::size_t count : {40, 600}) {
      // All 16 rows of an item are there, and parts of long sequences are left for a join.
      paged_batch b{dtype::bf16, 32, 2, dim, 16, {}, {}, {}, {}};
      for (std::size_t i = 0; i < count; ++i)
        b.members.push_back({static_cast<std::int32_t>(random.below(i % 4 == 0 ? 900 : 200)), 1});
      b.plan(random);
      const rope_inputs in{b, false, random};
      const mirror dq{in.q}, dk{in.k}, dv{in.v};
      const cuda::rope_store_args rope = in.args(dq, dk, dv);
      items by{b, false, true};
      by.turn = &rope;
      by.team = cuda::turned_team(rope.cache, static_cast<std::int64_t>(by.decode.size()));
      CAPTURE(dim, count, by.team);
      CHECK(attention_run{b, dq, dk, dv, by}.others(15'000) == 0);
    }
}

TEST_CASE("cuda attention turns q of prompts as rope_store does") {
  TROUPE_EACH_TYPE_OF_16_BITS(type);
  splitmix64 random{18};
  // Decodes before, behind and between prompts; tiles that begin within a position's heads.
  const std::vector<std::vector<paged_batch::member>> batches{
      {{0, 300}},
      {{255, 1}, {0, 128}, {1009, 31}, {40, 1}, {0, 70}, {512, 33}},
      {{0, 111}, {700, 1}, {63, 1}}};
  for (const auto& members : batches)
    for (const std::int32_t group : {1, 3, 4, 7, 20}) {
      CAPTURE(members.size(), group);
      paged_batch b{type, 2 * group, 2, 128, 16, members, {}, {}, {}};
      b.plan(random);
      const rope_inputs in{b, false, random};
      const mirror dq{in.q}, some{in.q}, dk{in.k}, dv{in.v}, other_k{in.k}, other_v{in.v};
      cuda::rope_store_args rope = in.args(dq, dk, dv);
      items by{b, true, true, cuda::wide_tile_rows};
      fine(cuda::rope_store(rope, nullptr));
      const matrix wanted = attend(b, dq, dk, dv, by);
      // What is left out stays NaN, and must not be read.
      rope = in.args(some, other_k, other_v);
      rope.query_begin = rope.query_end = 0;
      for (const cuda::sequence_rows& one : b.sequences) {
        if (one.rows * group > cuda::decode_tile_rows)
          continue;
        if (rope.query_end == 0)
          rope.query_begin = one.row_begin;
        rope.query_end = one.row_begin + one.rows;
      }
      fine(cuda::rope_store(rope, nullptr));
      by.raw = cuda::raw_queries_of(rope);
      const matrix got = attend(b, some, other_k, other_v, by);
      CHECK(cpu::testing::worst_error(got, wanted.doubles(), 1) < tolerance(type));
      matrix k = in.k, v = in.v, k_got = k, v_got = v;
      dk.fetch(k.bytes.data());
      dv.fetch(v.bytes.data());
      other_k.fetch(k_got.bytes.data());
      other_v.fetch(v_got.bytes.data());
      CHECK(k_got.bytes == k.bytes);
      CHECK(v_got.bytes == v.bytes);
    }
}
