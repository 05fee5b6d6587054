#include "kernels/cpu/ops.hpp"
#include "kernels/cpu/testing.hpp"
#include "kernels/reference/reference.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::kernels::cpu;
using namespace troupe::kernels::cpu::testing;

TEST_CASE("rms_norm is close to the reference, and each row is its own") {
  splitmix64 random{11};
  for (const isa path : paths())
    for (const dtype out_type : {dtype::f32, dtype::bf16})
      for (const std::int64_t cols : {1, 7, 16, 65, 320, 1001}) {
        constexpr std::int64_t rows = 9;
        matrix x{dtype::f32, rows, cols, cols + 3};
        matrix weight{dtype::f32, 1, cols, cols};
        x.fill(random, 3.0F);
        weight.fill(random, 1.0F);
        const auto run = [&](unsigned threads, std::int64_t begin, std::int64_t count, bool every) {
          matrix out{out_type, rows, cols, cols + 2};
          team t{threads, {.path = path}};
          const rms_norm_args args{.x = x.floats() + begin * x.stride,
                                   .x_stride = x.stride,
                                   .weight = weight.floats(),
                                   .eps = 1e-5F,
                                   .rows = count,
                                   .cols = cols,
                                   .out = out.data(),
                                   .out_stride = out.stride,
                                   .out_type = out_type,
                                   .every_member = every};
          REQUIRE(check(args));
          t.run([&](member& m) { rms_norm(m, args); });
          return out;
        };
        const matrix all = run(3, 0, rows, false);
        const auto truth = reference::rms_norm(x.doubles(), weight.doubles(), 1e-5);
        CHECK(worst_error(all, truth, 1e-3) < (out_type == dtype::f32 ? 2e-6 : 4.1e-3));
        for (std::int64_t row = 0; row < rows; ++row)
          CHECK(run(1, row, 1, true).same_bits(all, 0, row, 1));
      }
}

TEST_CASE("an odd row of bf16 is padded with a zero") {
  matrix x{dtype::f32, 1, 5, 5};
  matrix weight{dtype::f32, 1, 5, 5};
  matrix out{dtype::bf16, 1, 5, 6};
  team t{1};
  t.run([&](member& m) {
    rms_norm(m, {.x = x.floats(),
                 .x_stride = 5,
                 .weight = weight.floats(),
                 .rows = 1,
                 .cols = 5,
                 .out = out.data(),
                 .out_stride = 6});
  });
  CHECK(out.get(0, 5) == 0.0F);
}

TEST_CASE("embed gathers rows of any format") {
  splitmix64 random{12};
  for (const dtype type : {dtype::f32, dtype::bf16, dtype::f16}) {
    matrix table{type, 11, 19, 23};
    table.fill(random, 1.0F);
    const std::vector<token_id> tokens{3, 10, 0, 3};
    matrix out{dtype::f32, 4, 19, 20};
    embed_args args{
        .table = table.view(), .tokens = tokens, .out = out.floats(), .out_stride = out.stride};
    REQUIRE(check(args));
    team t{3};
    t.run([&](member& m) { embed(m, args); });
    bool same = true;
    for (std::int64_t i = 0; i < 4 * 19; ++i)
      same = same &&
             out.get(i / 19, i % 19) == table.get(tokens[static_cast<std::size_t>(i / 19)], i % 19);
    CHECK(same);
    const std::vector<token_id> outside{0, 11};
    args.tokens = outside;
    CHECK(check(args).error().code == errc::invalid_argument);
    args.tokens = tokens;
    args.out_stride = 18;
    CHECK(check(args).error().code == errc::bad_shape);
  }
}

TEST_CASE("silu_mul is close to the reference, far out too") {
  splitmix64 random{13};
  for (const isa path : paths()) {
    matrix gate{dtype::f32, 4, 37, 40};
    matrix up{dtype::f32, 4, 37, 40};
    gate.fill(random, 8.0F);
    up.fill(random, 1.0F);
    gate.set(0, 0, 1000.0F);
    gate.set(0, 1, -1000.0F);
    gate.set(0, 2, 0.0F);
    matrix out{dtype::f32, 4, 37, 37};
    team t{2, {.path = path}};
    t.run([&](member& m) {
      silu_mul(m, {.gate = gate.floats(),
                   .up = up.floats(),
                   .stride = 40,
                   .rows = 4,
                   .cols = 37,
                   .out = out.data(),
                   .out_stride = 37,
                   .out_type = dtype::f32});
    });
    CHECK(worst_error(out, reference::silu_mul(gate.doubles(), up.doubles()), 1e-3) < 2e-6);
    gate.set(1, 1, std::numeric_limits<float>::quiet_NaN());
    t.run([&](member& m) {
      silu_mul(m, {.gate = gate.floats(),
                   .up = up.floats(),
                   .stride = 40,
                   .rows = 4,
                   .cols = 37,
                   .out = out.data(),
                   .out_stride = 37,
                   .out_type = dtype::f32});
    });
    CHECK(std::isnan(out.get(1, 1)));
    CHECK(std::isfinite(out.get(1, 0)));
  }
}

TEST_CASE("every path rounds to bf16 as the helper does") {
  splitmix64 random{14};
  for (const isa path : paths()) {
    // A norm with weight x over ones leaves x to be rounded.
    matrix ones{dtype::f32, 1, 512, 512};
    matrix x{dtype::f32, 1, 512, 512};
    for (std::int64_t i = 0; i < 512; ++i) {
      ones.set(0, i, 1.0F);
      // Normal numbers, every second one exactly between two bf16.
      const auto high = static_cast<std::uint32_t>(0x3000U + random.below(0x2000U)) << 16U;
      const auto low = static_cast<std::uint32_t>(i % 2 == 0 ? 0x8000U : random.below(65536));
      x.set(0, i, std::bit_cast<float>(high | low));
    }
    matrix out{dtype::bf16, 1, 512, 512};
    team t{1, {.path = path}};
    t.run([&](member& m) {
      rms_norm(m, {.x = ones.floats(),
                   .x_stride = 512,
                   .weight = x.floats(),
                   .eps = 0,
                   .rows = 1,
                   .cols = 512,
                   .out = out.data(),
                   .out_stride = 512});
    });
    bool same = true;
    for (std::int64_t i = 0; i < 512; ++i)
      same = same && out.get(0, i) == from_bf16(to_bf16(x.get(0, i)));
    CHECK(same);
  }
}

TEST_CASE("add and gather_rows do what they say") {
  splitmix64 random{15};
  matrix x{dtype::f32, 6, 21, 22};
  matrix y{dtype::f32, 6, 21, 21};
  x.fill(random, 1.0F);
  y.fill(random, 1.0F);
  const matrix before = x;
  const std::vector<std::int64_t> rows{5, 0, 5};
  matrix picked{dtype::f32, 3, 21, 30};
  team t{2};
  t.run([&](member& m) {
    add(m,
        {.x = x.floats(), .x_stride = 22, .y = y.floats(), .y_stride = 21, .rows = 6, .cols = 21});
    m.sync();
    gather_rows(m, {.x = x.floats(),
                    .x_stride = 22,
                    .rows = rows,
                    .cols = 21,
                    .out = picked.floats(),
                    .out_stride = 30});
  });
  bool same = true;
  for (std::int64_t i = 0; i < 6 * 21; ++i)
    same = same && x.get(i / 21, i % 21) == before.get(i / 21, i % 21) + y.get(i / 21, i % 21);
  CHECK(same);
  CHECK(picked.same_bits(x, 0, 5, 1));
  CHECK(picked.same_bits(x, 1, 0, 1));
  CHECK(picked.same_bits(x, 2, 5, 1));
}

TEST_CASE("norms that make no sense are refused") {
  float x[4] = {};
  const rms_norm_args good{.x = x,
                           .x_stride = 2,
                           .weight = x,
                           .rows = 2,
                           .cols = 2,
                           .out = x,
                           .out_stride = 2,
                           .out_type = dtype::f32};
  CHECK(check(good));
  rms_norm_args bad = good;
  bad.out_type = dtype::f16;
  CHECK(check(bad).error().code == errc::unsupported);
  bad = good;
  bad.x_stride = 1;
  CHECK(check(bad).error().code == errc::bad_shape);
  bad = good;
  bad.weight = nullptr;
  CHECK(check(bad).error().code == errc::bad_shape);
  bad = good;
  bad.out = nullptr;
  CHECK(check(bad).error().code == errc::bad_shape);
}
