// What writes the paged cache, by itself and as a part of attention, against kernels/reference.
// Needs a GPU.
#include "kernels/cuda/attention_testing.hpp"
#include "kernels/cuda/product_ops.hpp"
#include "kernels/reference/reference.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::kernels::cuda::testing;

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

/// K and V of a cache, as they are on the device.
struct stored_rows {
  matrix k;
  matrix v;

  stored_rows(const rope_inputs& in, const mirror& on_k, const mirror& on_v) : k{in.k}, v{in.v} {
    on_k.fetch(k.bytes.data());
    on_v.fetch(v.bytes.data());
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
          // Where norms are made too, splits are as long as a step of decodes may want them.
          const std::int32_t length = norms ? 704 : cuda::split_positions;
          items by{b, false, splits, cuda::prefill_tile_rows, length};
          const cuda::rope_store_args rope = in.args(dq, dk, dv);
          fine(cuda::rope_store(rope, nullptr));
          const matrix wanted = attend(b, dq, dk, dv, {b, false, splits});
          CHECK(cpu::testing::worst_error(attend(b, dq, dk, dv, by), wanted.doubles(), 1) <
                tolerance(type));
          by.turn = &rope;
          for (by.team = cuda::turned_team(rope.cache, static_cast<std::int64_t>(by.decode.size()));
               by.team > 0; by.team /= 2) {
            CAPTURE(by.team);
            by.shared = !by.shared;
            const matrix got = attend(b, dq, other_k, other_v, by);
            CHECK(cpu::testing::worst_error(got, wanted.doubles(), 1) < tolerance(type));
          }
          // The row's own k and v are in the cache, and nothing else of it has changed.
          const stored_rows kept{in, dk, dv}, made{in, other_k, other_v};
          CHECK(cpu::testing::worst_error(made.k, kept.k.doubles(), 1) < tolerance(type));
          CHECK(made.v.bytes == kept.v.bytes);
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
      const stored_rows kept{in, dk, dv}, made{in, other_k, other_v};
      CHECK(made.k.bytes == kept.k.bytes);
      CHECK(made.v.bytes == kept.v.bytes);
    }
}

TEST_CASE("cuda attention of answers and prompts is the same however early it begins") {
  splitmix64 random{19};
  constexpr std::int64_t k = 64;
  constexpr int answers = 150;
  for (const std::int32_t dim : {64, 128})
    for (const int shape : {0, 1, 2, 3}) {
      const bool splits = shape % 2 == 1, raw = shape >= 2;
      CAPTURE(dim, splits, raw);
      if (raw && dim != 128)
        continue;
      // More answers than warps, of all lengths, and prompts from their beginning and behind it.
      paged_batch b{dtype::bf16, 32, 8, dim, 16, {}, {}, {}, {}};
      for (int i = 0; i < answers; ++i)
        b.members.push_back({static_cast<std::int32_t>(random.below(i % 4 == 0 ? 900 : 300)), 1});
      for (const paged_batch::member& prompt : {paged_batch::member{0, 300}, {512, 33}, {90, 128}})
        b.members.push_back(prompt);
      b.plan(random);
      rope_inputs in{b, false, random};
      // What the rows store themselves is NaN before.
      for (const cuda::batch_row& row : b.batch)
        for (std::int64_t head = 0; head < b.kv_heads; ++head) {
          const auto at = static_cast<std::ptrdiff_t>(b.place(row.slot, head) * 2);
          std::fill_n(in.k.bytes.begin() + at, dim * 2, std::byte{0xFF});
          std::fill_n(in.v.bytes.begin() + at, dim * 2, std::byte{0xFF});
        }
      matrix a{b.type, in.rows, k, k}, w{b.type, in.all, k, k};
      a.fill(random, 1);
      w.fill(random, 0.125F);
      const mirror da{a}, dw{w}, dq{in.q}, dk{in.k}, dv{in.v}, first_k{in.k}, first_v{in.v};
      cuda::rope_store_args rope = in.args(dq, dk, dv);
      items by{b, true, splits, cuda::wide_tile_rows};
      if (raw) {
        rope.query_end = answers;
        by.raw = cuda::raw_queries_of(rope);
      }
      by.in_front = [&] {
        for (const auto& [to, from] : {std::pair{&dk, &first_k}, std::pair{&dv, &first_v}})
          REQUIRE(cudaMemcpyAsync(to->as<void>(), from->as<void>(), to->size(),
                                  cudaMemcpyDeviceToDevice) == cudaSuccess);
        dq.poison();
        in.dx.poison();
        fine(cuda::wide_matmul({.a = da.as<void>(),
                                .lda = k,
                                .w = dw.as<void>(),
                                .out = in.dx.as<void>(),
                                .ldo = rope.qkv_stride,
                                .m = in.rows,
                                .n = in.all,
                                .k = k,
                                .type = b.type,
                                .out_type = b.type},
                               nullptr));
        fine(cuda::rope_store(rope, nullptr));
      };
      attention_run run{b, dq, dk, dv, by};
      cuda::shortcuts_taken().early_launch = false;
      const matrix wanted = run.go();
      cuda::shortcuts_taken() = {};
      const std::vector<double> numbers = wanted.doubles();
      CHECK(std::ranges::none_of(numbers, [](double x) { return std::isnan(x); }));
      CHECK(run.go().bytes == wanted.bytes);
      CHECK(run.others(500) == 0);
    }
}
