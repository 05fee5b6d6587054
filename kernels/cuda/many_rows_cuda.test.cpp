// Products of some hundred rows and of many against kernels/reference. Needs a GPU.
#include "kernels/cuda/testing.hpp"
#include "kernels/reference/reference.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::kernels::cuda::testing;
using cpu::testing::matrix;

namespace {

struct many_rows {
  std::int64_t m, n, k;
};

/// Odd numbers of everything, and more tiles than an H100 has multiprocessors: every way to cut
/// into tiles is the best one for some.
const std::vector<many_rows> wide_shapes{
    {1, 8, 8},         {5, 40, 64},       {127, 264, 72},   {128, 256, 128},  {129, 520, 200},
    {300, 1000, 1032}, {64, 8200, 520},   {640, 1544, 264}, {5, 6152, 72},    {3, 10248, 72},
    {400, 8200, 72},   {257, 10248, 136}, {770, 8200, 72},  {1100, 4104, 136}};

cuda::ordered_matmul_args wide_args(dtype type, const many_rows& s, const mirror& a,
                                    const mirror& w, const mirror& out) {
  return {.a = a.as<void>(),
          .lda = s.k + 8,
          .w = w.as<void>(),
          .out = out.as<void>(),
          .ldo = s.n + 8,
          .m = s.m,
          .n = s.n,
          .k = s.k,
          .type = type,
          .out_type = type};
}

using product_of_many = result<void>(const cuda::ordered_matmul_args&, cuda::stream_ref);

/// A product in `type`, in f32 and added to f32, a row alone where that has the bits that it has
/// beside others, and what is refused.
void check_product(product_of_many& multiply, dtype type, const many_rows& s, splitmix64& random,
                   bool alone = true) {
  CAPTURE(s.m, s.n, s.k);
  matrix a{type, s.m, s.k, s.k + 8}, w{type, s.n, s.k, s.k}, out{type, s.m, s.n, s.n + 8},
      sum{dtype::f32, s.m, s.n, s.n + 8};
  a.fill(random, 1);
  w.fill(random, 1 / std::sqrt(static_cast<float>(s.k)));
  sum.fill(random, 1);
  auto truth = reference::linear(a.doubles(), w.doubles(), s.k);
  const mirror da{a}, dw{w}, d{out}, ds{sum};
  auto args = wide_args(type, s, da, dw, d);
  fine(multiply(args, nullptr));
  d.fetch(out.bytes.data());
  CHECK(cpu::testing::worst_error(out, truth, 1) < tolerance(type));
  const matrix together = out;
  args.m = alone ? 1 : args.m;
  d.send(std::vector<std::byte>(out.bytes.size(), std::byte{0xFF}).data());
  fine(multiply(args, nullptr));
  d.fetch(out.bytes.data());
  CHECK(out.same_bits(together, 0, 0, 1));
  args = wide_args(type, s, da, dw, ds);
  args.add = true;
  CHECK(multiply(args, nullptr).error().code == errc::unsupported);
  args.out_type = dtype::f32;
  args.add = false;
  fine(multiply(args, nullptr));
  matrix floats = sum;
  ds.fetch(floats.bytes.data());
  CHECK(cpu::testing::worst_error(floats, truth, 1) < 1e-4);
  args.add = true;
  const auto before = sum.doubles();
  for (std::size_t i = 0; i < truth.size(); ++i)
    truth[i] += before[i];
  // Added as they are, and where tiles are kept rounded to bf16 before.
  for (const bool kept : {false, true}) {
    CAPTURE(kept);
    cuda::shortcuts_taken().kept_sums = kept ? 2 : 1 << 20;
    ds.send(sum.bytes.data());
    fine(multiply(args, nullptr));
    ds.fetch(floats.bytes.data());
    CHECK(cpu::testing::worst_error(floats, truth, 1) <
          (kept && type == dtype::bf16 ? tolerance(type) : 1e-4));
  }
  cuda::shortcuts_taken() = {};
  args.k -= 1;
  CHECK(multiply(args, nullptr).error().code == errc::unsupported);
}

} // namespace

TEST_CASE("cuda products of many rows") {
  TROUPE_EACH_TYPE_OF_16_BITS(type);
  splitmix64 random{25};
  for (const many_rows& s : wide_shapes)
    check_product(cuda::wide_matmul, type, s, random);
}

TEST_CASE("cuda products of many rows tell what leads in each row") {
  TROUPE_EACH_TYPE_OF_16_BITS(type);
  splitmix64 random{29};
  // On an H100 each way to cut into tiles is the best one for some.
  for (const many_rows& s : std::vector<many_rows>{{1, 8, 8},
                                                   {5, 40, 64},
                                                   {64, 10248, 72},
                                                   {64, 25352, 200},
                                                   {100, 10248, 72},
                                                   {128, 33544, 136},
                                                   {256, 17032, 72},
                                                   {200, 1000, 264}}) {
    CAPTURE(s.m, s.n, s.k);
    matrix a{type, s.m, s.k, s.k + 8}, w{type, s.n, s.k, s.k}, out{dtype::f32, s.m, s.n, s.n + 8};
    a.fill(random, 1);
    w.fill(random, 1);
    // Many equals: each second row of w is that before it.
    for (std::int64_t row = 1; row < s.n; row += 2)
      for (std::int64_t c = 0; c < s.k; ++c)
        w.set(row, c, w.get(row - 1, c));
    // One row has no finite output.
    if (s.m > 4)
      a.set(3, 0, std::numeric_limits<float>::infinity());
    const mirror da{a}, dw{w}, d{out};
    const std::int64_t count = cuda::count_leaders(s.n);
    std::vector<cuda::row_leader> told(static_cast<std::size_t>(s.m * count));
    const mirror leaders{told};
    auto args = wide_args(type, s, da, dw, d);
    args.out_type = dtype::f32;
    args.leaders = leaders.as<cuda::row_leader>();
    for (const bool stores : {true, false}) {
      leaders.poison();
      args.out = stores ? d.as<void>() : nullptr;
      fine(cuda::wide_matmul(args, nullptr));
      if (stores)
        d.fetch(out.bytes.data());
      leaders.fetch(told.data());
      std::size_t wrong = 0;
      for (std::int64_t row = 0; row < s.m; ++row)
        for (std::int64_t part = 0; part < count; ++part) {
          const std::int64_t first = part * cuda::led_columns;
          const std::int64_t end = std::min(first + cuda::led_columns, s.n);
          std::int64_t most = first;
          bool finite = true;
          for (std::int64_t c = first; c < end; ++c) {
            finite = finite && std::isfinite(out.get(row, c));
            most = out.get(row, c) > out.get(row, most) ? c : most;
          }
          const auto& one = told[static_cast<std::size_t>(row * count + part)];
          wrong +=
              finite ? one.column != most || one.value != out.get(row, most) : one.column != -1;
        }
      CHECK(wrong == 0);
    }
    CHECK(cuda::halved_matmul(args, nullptr).error().code == errc::unsupported);
    CHECK(cuda::streamed_matmul(args, nullptr).error().code == errc::unsupported);
    args.add = true;
    CHECK(cuda::wide_matmul(args, nullptr).error().code == errc::unsupported);
  }
}

TEST_CASE("cuda products of some hundred rows") {
  TROUPE_EACH_TYPE_OF_16_BITS(type);
  splitmix64 random{28};
  // On an H100 each way to cut into tiles is the best one for some.
  for (const many_rows& s : std::vector<many_rows>{{1, 8, 8},
                                                   {5, 40, 64},
                                                   {65, 4104, 136},
                                                   {127, 4104, 72},
                                                   {157, 4096, 136},
                                                   {192, 4096, 136},
                                                   {200, 4104, 136},
                                                   {61, 6152, 136},
                                                   {96, 6152, 72},
                                                   {99, 6152, 72},
                                                   {160, 6152, 72},
                                                   {383, 4104, 136},
                                                   {448, 4104, 72},
                                                   {512, 4104, 520},
                                                   {128, 1000, 2056},
                                                   {64, 520, 4104}})
    check_product(cuda::halved_matmul, type, s, random);
  // A row alone has so few tiles that its k is cut into quarters.
  for (const many_rows& s : {many_rows{300, 1000, 1032}, many_rows{100, 1912, 200}})
    check_product(cuda::halved_matmul, type, s, random, false);
  cuda::ordered_matmul_args args{.lda = 8,
                                 .ldo = 8,
                                 .m = cuda::max_halved_rows,
                                 .n = 8,
                                 .k = 8,
                                 .type = type,
                                 .out_type = type};
  CHECK(cuda::takes_halved(args));
  args.m += 1;
  CHECK(!cuda::takes_halved(args));
}

TEST_CASE("cuda gated product of many rows") {
  TROUPE_EACH_TYPE_OF_16_BITS(type);
  splitmix64 random{26};
  for (const many_rows& s : wide_shapes) {
    CAPTURE(s.m, s.n, s.k);
    matrix a{type, s.m, s.k, s.k + 8}, w{type, 2 * s.n, s.k, s.k},
        both{type, s.m, 2 * s.n, 2 * s.n + 8}, out{type, s.m, s.n, s.n + 8},
        wanted{type, s.m, s.n, s.n + 8};
    a.fill(random, 1);
    w.fill(random, 1 / std::sqrt(static_cast<float>(s.k)));
    const mirror da{a}, dw{w}, db{both}, d{out}, dwanted{wanted};
    fine(cuda::wide_matmul(wide_args(type, {s.m, 2 * s.n, s.k}, da, dw, db), nullptr));
    fine(cuda::silu_mul({.gate_up = db.as<void>(),
                         .stride = 2 * s.n + 8,
                         .out = dwanted.as<void>(),
                         .out_stride = s.n + 8,
                         .type = type,
                         .rows = s.m,
                         .cols = s.n},
                        nullptr));
    auto args = wide_args(type, s, da, dw, d);
    fine(cuda::wide_gated_matmul(args, nullptr));
    d.fetch(out.bytes.data());
    dwanted.fetch(wanted.bytes.data());
    // The last of eight bits, or of eleven, may be another; small numbers in f16 have fewer.
    const auto [small, bit] =
        type == dtype::bf16 ? std::pair{1e-6, 0x1p-7} : std::pair{0x1p-14, 0x1p-10};
    CHECK(cpu::testing::worst_error(out, wanted.doubles(), small) <= bit);
    const matrix together = out;
    args.m = 1;
    d.send(std::vector<std::byte>(out.bytes.size(), std::byte{0xFF}).data());
    fine(cuda::wide_gated_matmul(args, nullptr));
    d.fetch(out.bytes.data());
    CHECK(out.same_bits(together, 0, 0, 1));
    args.add = true;
    CHECK(cuda::wide_gated_matmul(args, nullptr).error().code == errc::unsupported);
  }
}
