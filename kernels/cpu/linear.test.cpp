#include "kernels/cpu/ops.hpp"
#include "kernels/cpu/testing.hpp"
#include "kernels/reference/reference.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::kernels::cpu;
using namespace troupe::kernels::cpu::testing;

namespace {

packed_matrix packed(std::vector<tensor_view> sources, dtype compute,
                     pack_layout layout = pack_layout::plain) {
  auto made = pack({.sources = sources, .compute = compute, .layout = layout});
  REQUIRE(made);
  return std::move(*made);
}

/// Activations of `rows` x `cols` whose padding beside an odd column count is zero.
matrix activations(splitmix64& random, dtype type, std::int64_t rows, std::int64_t cols) {
  matrix a{type, rows, cols, activation_stride(cols + 1, type), cols % 2};
  a.fill(random, 1.0F);
  return a;
}

constexpr std::int64_t sample_rows[] = {1,  2,  3,  7,  8,  13,  14,  15, 16,
                                        27, 28, 29, 33, 64, 100, 256, 512};

} // namespace

TEST_CASE("linear is close to the reference over odd shapes, formats and paths") {
  splitmix64 random{1};
  for (const isa path : paths())
    for (int round = 0; round < 24; ++round) {
      team t{static_cast<unsigned>(1 + random.below(3)), {.path = path}};
      const dtype compute = round % 2 == 0 ? dtype::bf16 : dtype::f32;
      const auto rows = static_cast<std::int64_t>(1 + random.below(40));
      const auto n = static_cast<std::int64_t>(1 + random.below(150));
      const auto k = static_cast<std::int64_t>(1 + random.below(200));
      matrix w{static_cast<dtype>(random.below(3)), n, k, k + 3};
      w.fill(random, 1.0F);
      const matrix a = activations(random, compute, rows, k);
      const packed_matrix p = packed({w.view()}, compute);
      matrix c{dtype::f32, rows, n, n + 5};
      const linear_args args{
          .a = a.data(), .lda = a.stride, .w = &p, .c = c.floats(), .ldc = c.stride, .rows = rows};
      REQUIRE(check(args));
      t.run([&](member& m) { linear(m, args); });
      matrix rounded{compute, n, k, k};
      for (std::int64_t i = 0; i < n * k; ++i)
        rounded.set(i / k, i % k, w.get(i / k, i % k));
      const auto truth = reference::linear(a.doubles(), rounded.doubles(), k);
      INFO(to_string(path) << " " << rows << " x " << k << " x " << n);
      CHECK(worst_error(c, truth, std::sqrt(double(k))) < 2e-6);
      // What lies between the rows of c is not touched.
      for (std::int64_t row = 0; row < rows; ++row)
        CHECK(std::isnan(c.get(row, n)));
    }
}

TEST_CASE("rows of linear have the same bits for every batch and number of threads") {
  splitmix64 random{2};
  constexpr std::int64_t k = 112;
  constexpr std::int64_t n = 170;
  for (const isa path : paths())
    for (const dtype compute : {dtype::bf16, dtype::f32})
      for (const bool tree : {false, true}) {
        matrix w{compute, n, k, k};
        w.fill(random, 1.0F);
        const packed_matrix p = packed({w.view()}, compute);
        const matrix a = activations(random, compute, 512, k);
        matrix first{dtype::f32, 512, n, n};
        const auto run = [&](team& t, matrix& c, std::int64_t begin, std::int64_t rows) {
          const auto at = static_cast<std::size_t>(begin * a.stride) * size_of(compute);
          t.run([&](member& m) {
            linear(m, {.a = a.bytes.data() + at,
                       .lda = a.stride,
                       .w = &p,
                       .c = c.floats() + begin * c.stride,
                       .ldc = c.stride,
                       .rows = rows,
                       .k_segments = tree ? 8 : 1});
          });
        };
        team alone{1, {.path = path}};
        for (std::int64_t row = 0; row < 512; ++row)
          run(alone, first, row, 1);
        for (unsigned threads = 1; threads <= 4; ++threads) {
          team t{threads, {.path = path}};
          for (const std::int64_t rows : sample_rows) {
            matrix c{dtype::f32, 512, n, n};
            run(t, c, 512 - rows, rows);
            INFO(to_string(path) << " threads " << threads << " rows " << rows);
            CHECK(c.same_bits(first, 512 - rows, 512 - rows, rows));
          }
        }
      }
}

TEST_CASE("the k tree has the same bits when ranks sum its segments") {
  splitmix64 random{3};
  constexpr std::int64_t k = 256;
  constexpr std::int64_t n = 40;
  constexpr std::int64_t rows = 5;
  for (const isa path : paths())
    for (const dtype compute : {dtype::bf16, dtype::f32}) {
      matrix w{compute, n, k, k};
      w.fill(random, 1.0F);
      const matrix a = activations(random, compute, rows, k);
      team t{2, {.path = path}};
      const auto part = [&](std::int64_t begin, std::int64_t width) {
        tensor_view view =
            matrix_view(w.bytes.data() + std::size_t(begin) * size_of(compute), compute, n, width);
        view.row_stride = k;
        const packed_matrix p = packed({view}, compute);
        matrix c{dtype::f32, rows, n, n};
        t.run([&](member& m) {
          linear(m, {.a = a.bytes.data() + std::size_t(begin) * size_of(compute),
                     .lda = a.stride,
                     .w = &p,
                     .c = c.floats(),
                     .ldc = n,
                     .rows = rows,
                     .k_segments = static_cast<std::int32_t>(width / 32)});
        });
        return c;
      };
      const matrix whole = part(0, k);
      std::vector<matrix> sums;
      for (std::int64_t segment = 0; segment < 8; ++segment)
        sums.push_back(part(segment * 32, 32));
      bool same = true;
      for (std::int64_t row = 0; row < rows; ++row)
        for (std::int64_t col = 0; col < n; ++col) {
          const auto s = [&](std::size_t i) { return sums[i].get(row, col); };
          const float joined = ((s(0) + s(1)) + (s(2) + s(3))) + ((s(4) + s(5)) + (s(6) + s(7)));
          same = same && joined == whole.get(row, col);
        }
      CHECK(same);
      // Ranks that hold several segments give the nodes of the tree above them.
      for (const std::int64_t width : {64, 128}) {
        const matrix node = part(k - width, width);
        const std::size_t first = static_cast<std::size_t>(8 - width / 32);
        for (std::int64_t row = 0; row < rows; ++row)
          for (std::int64_t col = 0; col < n; ++col) {
            const auto s = [&](std::size_t i) { return sums[first + i].get(row, col); };
            const float pair = s(0) + s(1);
            same = same && node.get(row, col) == (width == 64 ? pair : pair + (s(2) + s(3)));
          }
      }
      CHECK(same);
    }
}

TEST_CASE("bias is added to the sum, and the sum to the residual") {
  splitmix64 random{4};
  constexpr std::int64_t k = 48;
  constexpr std::int64_t n = 45;
  for (const std::int64_t rows : {1, 3, 20}) {
    matrix w{dtype::f32, n, k, k};
    w.fill(random, 1.0F);
    matrix bias{dtype::f32, 1, n, n};
    bias.fill(random, 1.0F);
    const matrix a = activations(random, dtype::f32, rows, k);
    const packed_matrix p = packed({w.view()}, dtype::f32);
    matrix plain{dtype::f32, rows, n, n};
    matrix full{dtype::f32, rows, n, n};
    full.fill(random, 1.0F);
    matrix expected = full;
    team t{2};
    linear_args args{
        .a = a.data(), .lda = a.stride, .w = &p, .c = plain.floats(), .ldc = n, .rows = rows};
    t.run([&](member& m) { linear(m, args); });
    args.c = full.floats();
    args.bias = bias.floats();
    args.accumulate = true;
    t.run([&](member& m) { linear(m, args); });
    for (std::int64_t i = 0; i < rows * n; ++i)
      expected.set(i / n, i % n,
                   expected.get(i / n, i % n) + (plain.get(i / n, i % n) + bias.get(0, i % n)));
    CHECK(full.same_bits(expected, 0, 0, rows));
  }
}

TEST_CASE("merged sources give the columns of each") {
  splitmix64 random{5};
  constexpr std::int64_t k = 34;
  matrix q{dtype::bf16, 40, k, k};
  matrix v{dtype::f16, 23, k, k + 1};
  q.fill(random, 1.0F);
  v.fill(random, 1.0F);
  team t{2};
  const std::vector<tensor_view> views{q.view(), v.view()};
  auto both = pack({.sources = views, .compute = dtype::bf16, .helpers = &t});
  REQUIRE(both);
  CHECK(both->rows() == 63);
  const packed_matrix only_v = packed({v.view()}, dtype::bf16);
  const matrix a = activations(random, dtype::bf16, 4, k);
  matrix merged{dtype::f32, 4, 63, 63};
  matrix single{dtype::f32, 4, 23, 23};
  t.run([&](member& m) {
    linear(
        m,
        {.a = a.data(), .lda = a.stride, .w = &*both, .c = merged.floats(), .ldc = 63, .rows = 4});
    linear(
        m,
        {.a = a.data(), .lda = a.stride, .w = &only_v, .c = single.floats(), .ldc = 23, .rows = 4});
  });
  for (std::int64_t i = 0; i < 4 * 23; ++i)
    CHECK(merged.get(i / 23, 40 + i % 23) == single.get(i / 23, i % 23));
}

TEST_CASE("gate and up in one pass are close to the reference and invariant") {
  splitmix64 random{6};
  for (const isa path : paths())
    for (const dtype compute : {dtype::bf16, dtype::f32})
      for (const std::int64_t f : {5, 16, 83, 128}) {
        constexpr std::int64_t k = 50;
        matrix gate{compute, f, k, k};
        matrix up{compute, f, k, k};
        gate.fill(random, 0.2F);
        up.fill(random, 0.2F);
        const packed_matrix p = packed({gate.view(), up.view()}, compute, pack_layout::gate_up);
        const matrix a = activations(random, compute, 33, k);
        const auto run = [&](unsigned threads, std::int64_t rows) {
          team t{threads, {.path = path}};
          matrix out{compute, rows, f, f + 2};
          const gate_up_args args{.a = a.data(),
                                  .lda = a.stride,
                                  .w = &p,
                                  .out = out.data(),
                                  .ldo = out.stride,
                                  .rows = rows};
          REQUIRE(check(args));
          t.run([&](member& m) { linear_silu_mul(m, args); });
          return out;
        };
        const matrix all = run(2, 33);
        const auto truth = reference::silu_mul(reference::linear(a.doubles(), gate.doubles(), k),
                                               reference::linear(a.doubles(), up.doubles(), k));
        CHECK(worst_error(all, truth, 1.0) < (compute == dtype::f32 ? 4e-6 : 4e-3));
        for (const std::int64_t rows : {1, 2, 3, 4, 15, 28})
          CHECK(run(static_cast<unsigned>(1 + random.below(4)), rows).same_bits(all, 0, 0, rows));
      }
}

TEST_CASE("a NaN or an infinity stays in its row and reaches every output") {
  splitmix64 random{7};
  for (const isa path : paths())
    for (const dtype compute : {dtype::bf16, dtype::f32}) {
      matrix w{compute, 40, 16, 16};
      w.fill(random, 1.0F);
      const packed_matrix p = packed({w.view()}, compute);
      matrix a = activations(random, compute, 3, 16);
      a.set(1, 5, std::numeric_limits<float>::quiet_NaN());
      a.set(2, 7, std::numeric_limits<float>::infinity());
      matrix c{dtype::f32, 3, 40, 40};
      team t{1, {.path = path}};
      t.run([&](member& m) {
        linear(m, {.a = a.data(), .lda = a.stride, .w = &p, .c = c.floats(), .ldc = 40, .rows = 3});
      });
      for (std::int64_t n = 0; n < 40; ++n) {
        CHECK(std::isfinite(c.get(0, n)));
        CHECK(std::isnan(c.get(1, n)));
        CHECK_FALSE(std::isfinite(c.get(2, n)));
      }
    }
}

TEST_CASE("what cannot be packed or multiplied is refused") {
  matrix a{dtype::f32, 4, 24, 24};
  matrix b{dtype::f32, 4, 20, 20};
  const auto code = [](const std::vector<tensor_view>& sources, dtype compute,
                       pack_layout layout = pack_layout::plain) {
    const auto made = pack({.sources = sources, .compute = compute, .layout = layout});
    return made ? errc::none : made.error().code;
  };
  CHECK(code({}, dtype::f32) == errc::bad_shape);
  CHECK(code({a.view(), b.view()}, dtype::f32) == errc::bad_shape);
  CHECK(code({a.view()}, dtype::f16) == errc::unsupported);
  CHECK(code({a.view()}, dtype::f32, pack_layout::gate_up) == errc::bad_shape);
  tensor_view vector = a.view();
  vector.rank = 1;
  CHECK(code({vector}, dtype::f32) == errc::bad_shape);
  const packed_matrix p = packed({a.view()}, dtype::f32);
  float c[4];
  const linear_args good{.a = a.data(), .lda = 24, .w = &p, .c = c, .ldc = 4, .rows = 1};
  CHECK(check(good));
  const auto refused = [&](auto change) {
    linear_args args = good;
    change(args);
    const auto checked = check(args);
    return !checked && checked.error().code == errc::bad_shape;
  };
  CHECK(refused([](linear_args& x) { x.w = nullptr; }));
  CHECK(refused([](linear_args& x) { x.lda = 23; }));
  CHECK(refused([](linear_args& x) { x.ldc = 3; }));
  CHECK(refused([](linear_args& x) { x.a = nullptr; }));
  CHECK(refused([](linear_args& x) { x.rows = -1; }));
  CHECK(refused([](linear_args& x) { x.k_segments = 8; }));
  CHECK(refused([](linear_args& x) { x.k_segments = 3; }));
  CHECK(refused([](linear_args& x) { x.k_segments = 16; }));
  CHECK(refused([](linear_args& x) { x.k_segments = 0; }));
  CHECK_FALSE(
      check(gate_up_args{.a = a.data(), .lda = 24, .w = &p, .out = c, .ldo = 4, .rows = 1}));
}
