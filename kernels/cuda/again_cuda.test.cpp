// The same launches thousands of times, for what goes wrong once in twenty thousand: not a part of
// every run of the tests, `[again]` names them. Needs a GPU.
#include "kernels/cuda/attention_testing.hpp"
#include "kernels/cuda/product_ops.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::kernels::cuda::testing;

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

TEST_CASE("cuda products have the same bits whenever they are made", "[.][again]") {
  // w is in L2 from the second launch on, so that the next stage comes as soon as it can.
  constexpr std::int64_t n = 8192, k = 1024, most = 512;
  splitmix64 random{24};
  matrix a{dtype::bf16, most, k, k}, w{dtype::bf16, n, k, k};
  a.fill(random, 1);
  w.fill(random, 1 / std::sqrt(static_cast<float>(k)));
  const mirror da{a}, dw{w};
  using product = result<void>(const cuda::ordered_matmul_args&, cuda::stream_ref);
  struct use {
    product* multiply;
    std::int64_t outputs;
    std::vector<std::int64_t> rows;
  };
  const std::vector<use> uses{{cuda::skinny_matmul, n, {1, 2}},
                              {cuda::streamed_matmul, n, {1, 8, 32, 64}},
                              {cuda::streamed_gated_matmul, n / 2, {1, 8, 32, 64}},
                              {cuda::halved_matmul, n, {64, 256}},
                              {cuda::wide_matmul, n, {256, 512}},
                              {cuda::wide_gated_matmul, n / 2, {256, 512}}};
  for (const use& one : uses)
    for (const std::int64_t rows : one.rows) {
      CAPTURE(&one - uses.data(), rows);
      const mirror out{static_cast<std::size_t>(rows * one.outputs) * 2};
      const cuda::ordered_matmul_args args{.a = da.as<void>(),
                                           .lda = k,
                                           .w = dw.as<void>(),
                                           .out = out.as<void>(),
                                           .ldo = one.outputs,
                                           .m = rows,
                                           .n = one.outputs,
                                           .k = k,
                                           .type = dtype::bf16,
                                           .out_type = dtype::bf16};
      CHECK(count_others(out, rows > 64 ? 3'000 : 15'000,
                         [&] { fine(one.multiply(args, nullptr)); }) == 0);
    }
}
