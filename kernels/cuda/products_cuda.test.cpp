// Products against kernels/reference, and chains of them. Needs a GPU.
#include "kernels/cuda/matmul.hpp"
#include "kernels/cuda/testing.hpp"
#include "kernels/reference/reference.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>
#include <vector>

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::kernels::cuda::testing;
using cpu::testing::matrix;
using cpu::testing::random_values;

TEST_CASE("cuda products") {
  splitmix64 random{3};
  mirror workspace{32U << 20U};
  auto library = cuda::matmul_library::make(workspace.as<void>(), 32U << 20U);
  REQUIRE(library);
  struct shape {
    std::int64_t m, n, k;
  };
  for (const dtype type : types)
    for (const dtype out_type : {type, dtype::f32})
      for (const shape s : {shape{1, 64, 64}, shape{3, 8, 16}, shape{65, 130, 72},
                            shape{17, 200, 512}, shape{8, 4096, 1024}, shape{130, 256, 320}}) {
        CAPTURE(static_cast<int>(type), s.m, s.n, s.k);
        matrix a{type, s.m, s.k, s.k}, w{type, s.n, s.k, s.k}, out{out_type, s.m, s.n, s.n};
        a.fill(random, 1);
        w.fill(random, 1 / std::sqrt(static_cast<float>(s.k)));
        const auto truth = reference::linear(a.doubles(), w.doubles(), s.k);
        const mirror da{a}, dw{w}, first{out}, second{out};
        const double limit = out_type == dtype::f32 ? 1e-4 : tolerance(type);
        fine(cuda::ordered_matmul({.a = da.as<void>(),
                                   .lda = s.k,
                                   .w = dw.as<void>(),
                                   .out = first.as<void>(),
                                   .ldo = s.n,
                                   .m = s.m,
                                   .n = s.n,
                                   .k = s.k,
                                   .type = type,
                                   .out_type = out_type},
                                  nullptr));
        first.fetch(out.bytes.data());
        CHECK(cpu::testing::worst_error(out, truth, 1) < limit);
        const cuda::matmul_args args{.a = da.as<void>(),
                                     .lda = s.k,
                                     .w = dw.as<void>(),
                                     .out = second.as<void>(),
                                     .ldo = s.n,
                                     .m = s.m,
                                     .n = s.n,
                                     .k = s.k,
                                     .type = type,
                                     .out_type = out_type};
        fine(library->run(args, nullptr));
        second.fetch(out.bytes.data());
        CHECK(cpu::testing::worst_error(out, truth, 1) < limit);
        const void* const weights[] = {dw.as<void>()};
        fine(library->tune(args, weights, nullptr));
        second.send(std::vector<std::byte>(out.bytes.size(), std::byte{0xFF}).data());
        fine(library->run(args, nullptr));
        second.fetch(out.bytes.data());
        CHECK(cpu::testing::worst_error(out, truth, 1) < limit);
        // What an earlier start chose is taken as it is, and what is damaged is measured anew.
        const auto known = library->choices();
        auto broken = known;
        for (auto& [shape, choice] : broken)
          choice = shape.size() % 2 == 0 ? "nobody" : std::string(choice.size(), 'f');
        for (const bool damaged : {false, true}) {
          auto later = cuda::matmul_library::make(workspace.as<void>(), 32U << 20U);
          REQUIRE(later);
          later->recall(damaged ? broken : known);
          fine(later->tune(args, weights, nullptr));
          for (const auto& [shape, choice] : later->choices())
            CHECK((damaged || choice == known.at(shape)));
          second.send(std::vector<std::byte>(out.bytes.size(), std::byte{0xFF}).data());
          fine(later->run(args, nullptr));
          second.fetch(out.bytes.data());
          CHECK(cpu::testing::worst_error(out, truth, 1) < limit);
        }
        if (out_type != dtype::f32)
          continue;
        // Once more on top of it.
        cuda::matmul_args added = args;
        added.add = true;
        fine(library->run(added, nullptr));
        second.fetch(out.bytes.data());
        auto twice = truth;
        for (double& x : twice)
          x *= 2;
        CHECK(cpu::testing::worst_error(out, twice, 1) < 2 * limit);
      }
}

namespace {

/// The kernels for few rows.
struct own_product {
  result<void> (*multiply)(const cuda::ordered_matmul_args&, cuda::stream_ref);
  result<void> (*gated)(const cuda::ordered_matmul_args&, cuda::stream_ref);
  std::vector<std::int64_t> rows;
  /// k is a multiple of it.
  std::int64_t step = 8;
};

const std::vector<own_product> own_products{
    {cuda::skinny_matmul, cuda::skinny_gated_matmul, {1, 2, 3, 4, 5, 6, 7, 8}},
    {cuda::streamed_matmul,
     cuda::streamed_gated_matmul,
     {1, 3, 8, 9, 16, 17, 32, 33, 48, 49, 64},
     64}};

} // namespace

TEST_CASE("cuda products of few rows") {
  TROUPE_EACH_TYPE_OF_16_BITS(type);
  const std::vector<std::pair<std::int64_t, std::int64_t>> shapes{
      {1, 8},      {7, 264},   {200, 512}, {131, 4096}, {64, 1032}, {1, 16},    {7, 272},
      {700, 2048}, {6144, 48}, {9000, 16}, {1, 64},     {7, 320},   {6144, 64}, {9000, 128}};
  splitmix64 random{4};
  for (const dtype out_type : {type, dtype::f32})
    for (const own_product& own : own_products)
      for (const std::int64_t rows : own.rows)
        for (const auto& [n, k] : shapes) {
          CAPTURE(static_cast<int>(out_type), &own - own_products.data(), rows, n, k);
          if (k % own.step != 0)
            continue;
          matrix a{type, rows, k, k + 8}, w{type, n, k, k}, out{out_type, rows, n, n + 3};
          a.fill(random, 1);
          w.fill(random, 1 / std::sqrt(static_cast<float>(k)));
          const auto truth = reference::linear(a.doubles(), w.doubles(), k);
          const mirror da{a}, dw{w}, d{out};
          cuda::ordered_matmul_args args{.a = da.as<void>(),
                                         .lda = k + 8,
                                         .w = dw.as<void>(),
                                         .out = d.as<void>(),
                                         .ldo = n + 3,
                                         .m = rows,
                                         .n = n,
                                         .k = k,
                                         .type = type,
                                         .out_type = out_type};
          fine(own.multiply(args, nullptr));
          d.fetch(out.bytes.data());
          CHECK(cpu::testing::worst_error(out, truth, 1) <
                (out_type == dtype::f32 ? 1e-4 : tolerance(out_type)));
          // A row alone has the bits that it has beside others.
          const matrix together = out;
          args.m = 1;
          d.send(std::vector<std::byte>(out.bytes.size(), std::byte{0xFF}).data());
          fine(own.multiply(args, nullptr));
          d.fetch(out.bytes.data());
          CHECK(out.same_bits(together, 0, 0, 1));
          args.k -= 1;
          CHECK(own.multiply(args, nullptr).error().code == errc::unsupported);
        }
}

TEST_CASE("cuda streamed product of every number of rows") {
  TROUPE_EACH_TYPE_OF_16_BITS(type);
  splitmix64 random{24};
  for (std::int64_t rows = 1; rows <= cuda::max_streamed_rows; ++rows)
    for (int i = 0; i < 3; ++i) {
      const auto n = static_cast<std::int64_t>(1 + random.below(600));
      const auto k = static_cast<std::int64_t>(64 + random.below(10) * 64);
      CAPTURE(rows, n, k);
      matrix a{type, rows, k, k}, w{type, n, k, k}, out{dtype::f32, rows, n, n};
      a.fill(random, 1);
      w.fill(random, 1 / std::sqrt(static_cast<float>(k)));
      const auto truth = reference::linear(a.doubles(), w.doubles(), k);
      const mirror da{a}, dw{w}, d{out};
      cuda::ordered_matmul_args args{.a = da.as<void>(),
                                     .lda = k,
                                     .w = dw.as<void>(),
                                     .out = d.as<void>(),
                                     .ldo = n,
                                     .m = rows,
                                     .n = n,
                                     .k = k,
                                     .type = type,
                                     .out_type = dtype::f32};
      fine(cuda::streamed_matmul(args, nullptr));
      d.fetch(out.bytes.data());
      CHECK(cpu::testing::worst_error(out, truth, 1) < 1e-4);
      // Once more on top of it.
      args.add = true;
      fine(cuda::streamed_matmul(args, nullptr));
      d.fetch(out.bytes.data());
      auto twice = truth;
      for (double& x : twice)
        x *= 2;
      CHECK(cpu::testing::worst_error(out, twice, 1) < 2e-4);
      args.out_type = type;
      CHECK(cuda::streamed_matmul(args, nullptr).error().code == errc::unsupported);
    }
}

TEST_CASE("cuda gated product of few rows") {
  TROUPE_EACH_TYPE_OF_16_BITS(type);
  const std::vector<std::pair<std::int64_t, std::int64_t>> shapes{
      {1, 8}, {7, 264}, {7, 272}, {130, 2048}, {5000, 32}, {1, 64}, {7, 320}, {5000, 64}};
  splitmix64 random{14};
  for (const own_product& own : own_products)
    for (const std::int64_t rows : own.rows)
      for (const auto& [n, k] : shapes) {
        CAPTURE(&own - own_products.data(), rows, n, k);
        if (k % own.step != 0)
          continue;
        matrix a{type, rows, k, k}, w{type, 2 * n, k, k}, both{type, rows, 2 * n, 2 * n},
            out{type, rows, n, n + 3}, wanted{type, rows, n, n + 3};
        a.fill(random, 1);
        w.fill(random, 1 / std::sqrt(static_cast<float>(k)));
        const mirror da{a}, dw{w}, db{both}, d{out}, dwanted{wanted};
        cuda::ordered_matmul_args args{.a = da.as<void>(),
                                       .lda = k,
                                       .w = dw.as<void>(),
                                       .out = db.as<void>(),
                                       .ldo = 2 * n,
                                       .m = rows,
                                       .n = 2 * n,
                                       .k = k,
                                       .type = type,
                                       .out_type = type};
        fine(own.multiply(args, nullptr));
        fine(cuda::silu_mul({.gate_up = db.as<void>(),
                             .stride = 2 * n,
                             .out = dwanted.as<void>(),
                             .out_stride = n + 3,
                             .type = type,
                             .rows = rows,
                             .cols = n},
                            nullptr));
        args.n = n;
        args.ldo = n + 3;
        args.out = d.as<void>();
        fine(own.gated(args, nullptr));
        d.fetch(out.bytes.data());
        dwanted.fetch(wanted.bytes.data());
        for (std::int64_t row = 0; row < rows; ++row)
          CHECK(out.same_bits(wanted, row, row, 1));
        args.out_type = dtype::f32;
        CHECK(own.gated(args, nullptr).error().code == errc::unsupported);
        args.add = true;
        CHECK(own.gated(args, nullptr).error().code == errc::unsupported);
        CHECK(cuda::skinny_matmul(args, nullptr).error().code == errc::unsupported);
        CHECK(cuda::ordered_matmul(args, nullptr).error().code == errc::unsupported);
      }
}

TEST_CASE("rows that were not tuned take the kernel for many rows beside tuned ones") {
  TROUPE_EACH_TYPE_OF_16_BITS(type);
  splitmix64 random{27};
  mirror workspace{32U << 20U};
  const struct { std::int64_t m, n, k; } s{192, 264, 128};
  matrix a{type, s.m, s.k, s.k + 8}, w{type, s.n, s.k, s.k}, out{type, s.m, s.n, s.n + 8};
  a.fill(random, 1);
  w.fill(random, 1);
  const mirror da{a}, dw{w}, d{out};
  const auto args_for = [&](std::int64_t rows) {
    return cuda::matmul_args{.a = da.as<void>(),
                             .lda = s.k + 8,
                             .w = dw.as<void>(),
                             .out = d.as<void>(),
                             .ldo = s.n + 8,
                             .m = rows,
                             .n = s.n,
                             .k = s.k,
                             .type = type,
                             .out_type = type};
  };
  const void* const weights[] = {dw.as<void>()};
  auto first = cuda::matmul_library::make(workspace.as<void>(), 32U << 20U);
  REQUIRE(first);
  fine(first->tune(args_for(128), weights, nullptr));
  auto known = first->choices();
  REQUIRE(known.size() == 1);
  for (const std::string_view choice : {"wide", "nobody"}) {
    known.begin()->second = choice;
    auto later = cuda::matmul_library::make(workspace.as<void>(), 32U << 20U);
    REQUIRE(later);
    later->recall(known);
    CHECK(later->kernel_of(args_for(160)) == "cuBLASLt");
    fine(later->tune(args_for(128), weights, nullptr));
    const bool wide = choice == "wide";
    if (wide)
      CHECK(later->kernel_of(args_for(128)) == "wide");
    // What was asked for before stays; few rows are never its.
    for (const std::int64_t rows : {64, 100, 192})
      CHECK(later->kernel_of(args_for(rows)) == later->kernel_of(args_for(128)));
    CHECK(later->kernel_of(args_for(160)) == "cuBLASLt");
    CHECK(later->kernel_of(args_for(16)) != "wide");
  }
}

TEST_CASE("a kernel of our own can be chosen for a product") {
  TROUPE_EACH_TYPE_OF_16_BITS(type);
  splitmix64 random{28};
  mirror workspace{32U << 20U};
  matrix a{type, 2, 128, 128}, w{type, 72, 128, 128}, out{type, 2, 72, 72};
  a.fill(random, 1);
  w.fill(random, 0.1F);
  const auto truth = reference::linear(a.doubles(), w.doubles(), 128);
  const mirror da{a}, dw{w}, d{out};
  const cuda::matmul_args args{.a = da.as<void>(),
                               .lda = 128,
                               .w = dw.as<void>(),
                               .out = d.as<void>(),
                               .ldo = 72,
                               .m = 2,
                               .n = 72,
                               .k = 128,
                               .type = type,
                               .out_type = type};
  const auto names = cuda::matmul_library::own_kernels_of(args);
  CHECK(names == std::vector<std::string_view>{"skinny", "streamed"});
  for (const std::string_view name : names) {
    auto library = cuda::matmul_library::make(workspace.as<void>(), 32U << 20U);
    REQUIRE(library);
    const void* const weights[] = {dw.as<void>()};
    fine(library->tune(args, weights, nullptr));
    library->choose(args, "cuBLASLt");
    CHECK(library->kernel_of(args) == "cuBLASLt");
    library->choose(args, name);
    CHECK(library->kernel_of(args) == name);
    fine(library->run(args, nullptr));
    d.fetch(out.bytes.data());
    CHECK(cpu::testing::worst_error(out, truth, 1) < tolerance(type));
    // A later start takes it without measuring.
    auto next = cuda::matmul_library::make(workspace.as<void>(), 32U << 20U);
    REQUIRE(next);
    CHECK(!next->recalls(args));
    next->recall(library->choices());
    CHECK(next->recalls(args));
    fine(next->tune(args, weights, nullptr));
    CHECK(next->kernel_of(args) == name);
  }
}

TEST_CASE("cuda kernels that start early wait for each other") {
  TROUPE_EACH_TYPE_OF_16_BITS(type);
  // A chain as a layer has it, many times over, on a stream of its own: with and without the
  // overlap the bits are the same.
  constexpr std::int64_t most = 300;
  constexpr std::int64_t cols = 2048;
  splitmix64 random{15};
  matrix delta{type, most, cols, cols}, w{type, 2 * cols, cols, cols}, down{type, cols, cols, cols},
      residual{dtype::f32, most, cols, cols};
  delta.fill(random, 1);
  residual.fill(random, 1);
  w.fill(random, 1 / std::sqrt(static_cast<float>(cols)));
  down.fill(random, 1 / std::sqrt(static_cast<float>(cols)));
  const auto weight = random_values(random, cols, 1);
  const mirror dw{w}, ddown{down}, n{weight}, normed{delta}, gated{delta}, dd{delta}, r{residual};
  cudaStream_t stream = nullptr;
  REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  std::int64_t rows = 2;
  const auto multiply = [&](const mirror& a, const mirror& by, const mirror& out) {
    return cuda::ordered_matmul_args{.a = a.as<void>(),
                                     .lda = cols,
                                     .w = by.as<void>(),
                                     .out = out.as<void>(),
                                     .ldo = cols,
                                     .m = rows,
                                     .n = cols,
                                     .k = cols,
                                     .type = type,
                                     .out_type = type};
  };
  std::vector<matrix> made;
  std::vector<own_product> all = own_products;
  all.push_back({cuda::streamed_matmul, cuda::streamed_gated_matmul, {cuda::max_streamed_rows}});
  all.push_back({cuda::wide_matmul, cuda::wide_gated_matmul, {most}});
  all.push_back({cuda::halved_matmul, cuda::wide_gated_matmul, {most}});
  for (const own_product& own : all)
    for (const bool early : {false, true, true}) {
      rows = std::max(rows, own.rows.front());
      cuda::shortcuts_taken().early_launch = early;
      r.send(residual.bytes.data());
      dd.send(delta.bytes.data());
      REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
      for (int i = 0; i < 40; ++i) {
        fine(cuda::rms_norm({.residual = r.as<float>(),
                             .residual_stride = cols,
                             .delta = dd.as<void>(),
                             .delta_stride = cols,
                             .weight = n.as<float>(),
                             .rows = rows,
                             .cols = cols,
                             .type = type,
                             .out = normed.as<void>(),
                             .out_stride = cols},
                            stream));
        fine(own.gated(multiply(normed, dw, gated), stream));
        fine(own.multiply(multiply(gated, ddown, dd), stream));
      }
      REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
      made.emplace_back(dtype::f32, most, cols, cols);
      r.fetch(made.back().bytes.data());
    }
  cuda::shortcuts_taken() = {};
  cudaStreamDestroy(stream);
  for (std::int64_t row = 0; row < most; ++row) {
    for (std::size_t i = 0; i < made.size(); ++i)
      CHECK(made[i].same_bits(made[i / 3 * 3], row, row, 1));
  }
}
