// Norms that one product begins and the next one ends, against kernels/reference. Needs a GPU.
#include "kernels/cuda/testing.hpp"
#include "kernels/reference/reference.hpp"

#include <catch2/catch.hpp>

#include <cmath>
#include <vector>

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::kernels::cuda::testing;
using cpu::testing::matrix;
using cpu::testing::random_values;

namespace {

constexpr float eps = 1e-3F;

/// A residual of `cols` columns that a product of k is added to, and what reads its norm.
struct split_shape {
  std::int64_t rows, cols, k, outputs;
};

/// On an H100 each way to cut into tiles is the best one for some.
const std::vector<split_shape> shapes{
    {1, 256, 72, 40},     {5, 1024, 520, 264},  {64, 1024, 2056, 520}, {65, 4096, 136, 72},
    {100, 1280, 264, 72}, {128, 1024, 520, 40}, {157, 4096, 136, 40},  {192, 4096, 72, 64},
    {200, 2304, 72, 72},  {61, 256, 72, 6152},  {256, 1024, 136, 264}, {256, 4096, 72, 40},
    {300, 1024, 264, 72}, {99, 512, 72, 4104},  {383, 4096, 72, 40},   {448, 4096, 72, 24},
    {512, 4096, 72, 40}};

/// A residual and all that a split norm of it takes.
struct split_norm_case {
  dtype type;
  split_shape s;
  matrix a, w, residual, rows, next;
  std::vector<float> weight;
  mirror da, dw, dresidual, drows, dnext, dweight, dsquares;

  split_norm_case(dtype of, const split_shape& shape, splitmix64& random)
      : type{of}, s{shape}, a{type, s.rows, s.k, s.k}, w{type, s.cols, s.k, s.k},
        residual{dtype::f32, s.rows, s.cols, s.cols + 8}, rows{type, s.rows, s.cols, s.cols},
        next{type, 2 * s.outputs, s.cols, s.cols}, weight{random_values(random, s.cols, 1)},
        da{filled(a, random, 1)}, dw{filled(w, random, 1 / std::sqrt(static_cast<float>(s.k)))},
        dresidual{filled(residual, random, 3)}, drows{rows.bytes.size()},
        dnext{filled(next, random, 1 / std::sqrt(static_cast<float>(s.cols)))}, dweight{weight},
        dsquares{static_cast<std::size_t>(s.rows * s.cols / cuda::norm_part) * 4} {}

  static const matrix& filled(matrix& one, splitmix64& random, float deviation) {
    one.fill(random, deviation);
    return one;
  }
  /// The product that adds to the residual, without its part in the norm.
  [[nodiscard]] cuda::ordered_matmul_args adding() const {
    return {.a = da.as<void>(),
            .lda = s.k,
            .w = dw.as<void>(),
            .out = dresidual.as<void>(),
            .ldo = s.cols + 8,
            .m = s.rows,
            .n = s.cols,
            .k = s.k,
            .type = type,
            .out_type = dtype::f32,
            .add = true};
  }
  [[nodiscard]] cuda::ordered_matmul_args beginning() const {
    auto args = adding();
    args.begins = {dweight.as<float>(), drows.as<void>(), dsquares.as<float>()};
    return args;
  }
  /// The product behind it, into `out`.
  [[nodiscard]] cuda::ordered_matmul_args ending(const mirror& out) const {
    return {.a = drows.as<void>(),
            .lda = s.cols,
            .w = dnext.as<void>(),
            .out = out.as<void>(),
            .ldo = s.outputs + 8,
            .m = s.rows,
            .n = s.outputs,
            .k = s.cols,
            .type = type,
            .out_type = type,
            .ends = {dsquares.as<float>(), eps}};
  }
};

/// What is left of the norm: each row of the product by the root of the row's mean square.
void end_norm(std::vector<double>& outputs, const matrix& residual) {
  const auto all = residual.doubles();
  const auto cols = static_cast<std::size_t>(residual.cols);
  const auto rows = static_cast<std::size_t>(residual.rows);
  const std::size_t width = outputs.size() / rows;
  for (std::size_t row = 0; row < rows; ++row) {
    double squares = 0;
    for (std::size_t c = 0; c < cols; ++c)
      squares += all[row * cols + c] * all[row * cols + c];
    const double scale = 1 / std::sqrt(squares / static_cast<double>(cols) + eps);
    for (std::size_t i = 0; i < width; ++i)
      outputs[row * width + i] *= scale;
  }
}

} // namespace

TEST_CASE("cuda: a norm that a product begins and the next one ends") {
  TROUPE_EACH_TYPE_OF_16_BITS(type);
  splitmix64 random{51};
  for (const split_shape& s : shapes) {
    CAPTURE(s.rows, s.cols, s.k, s.outputs);
    split_norm_case one{type, s, random};
    // The residual is that of a product which begins nothing.
    fine(cuda::halved_matmul(one.adding(), nullptr));
    matrix plain = one.residual, residual = one.residual;
    one.dresidual.fetch(plain.bytes.data());
    one.dresidual.send(one.residual.bytes.data());
    fine(cuda::halved_matmul(one.beginning(), nullptr));
    one.dresidual.fetch(residual.bytes.data());
    one.drows.fetch(one.rows.bytes.data());
    matrix wanted = one.rows;
    for (std::int64_t row = 0; row < s.rows; ++row) {
      CHECK(residual.same_bits(plain, row, row, 1));
      for (std::int64_t c = 0; c < s.cols; ++c)
        wanted.set(row, c, residual.get(row, c) * one.weight[static_cast<std::size_t>(c)]);
      CHECK(one.rows.same_bits(wanted, row, row, 1));
    }
    matrix out{type, s.rows, s.outputs, s.outputs + 8};
    const mirror d{out};
    if (s.rows > cuda::max_split_rows) {
      CHECK(cuda::wide_matmul(one.ending(d), nullptr).error().code == errc::unsupported);
      continue;
    }
    auto truth = reference::linear(one.rows.doubles(), one.next.doubles(), s.cols);
    end_norm(truth, residual);
    // Of the first half of the outputs, and of both as gate and up.
    std::vector<double> first, gated;
    for (std::size_t i = 0; i < truth.size(); ++i) {
      const auto width = static_cast<std::size_t>(s.outputs);
      if (i % (2 * width) >= width)
        continue;
      first.push_back(truth[i]);
      gated.push_back(truth[i] / (1 + std::exp(-truth[i])) * truth[i + width]);
    }
    for (auto* const multiply : {cuda::halved_matmul, cuda::wide_matmul}) {
      d.poison();
      fine(multiply(one.ending(d), nullptr));
      d.fetch(out.bytes.data());
      CHECK(cpu::testing::worst_error(out, first, 1) < tolerance(type));
    }
    d.poison();
    fine(cuda::wide_gated_matmul(one.ending(d), nullptr));
    d.fetch(out.bytes.data());
    CHECK(cpu::testing::worst_error(out, gated, 1) < tolerance(type));
  }
}

TEST_CASE("cuda: products that have no part in a norm refuse one") {
  TROUPE_EACH_TYPE_OF_16_BITS(type);
  splitmix64 random{52};
  const split_norm_case one{type, {4, 256, 512, 64}, random};
  const auto refused = [](auto* multiply, const cuda::ordered_matmul_args& args) {
    const auto done = multiply(args, nullptr);
    return !done && done.error().code == errc::unsupported;
  };
  const mirror d{matrix{dtype::f32, 4, 64, 72}};
  for (auto* const multiply :
       {cuda::ordered_matmul, cuda::skinny_matmul, cuda::streamed_matmul, cuda::wide_matmul})
    CHECK(refused(multiply, one.beginning()));
  for (auto* const multiply : {cuda::ordered_matmul, cuda::skinny_matmul, cuda::streamed_matmul})
    CHECK(refused(multiply, one.ending(d)));
  auto args = one.beginning();
  args.add = false;
  CHECK(refused(cuda::halved_matmul, args));
  args = one.beginning();
  args.n -= 8;
  CHECK(refused(cuda::halved_matmul, args));
  args = one.ending(d);
  args.k -= 64;
  CHECK(refused(cuda::halved_matmul, args));
  CHECK(refused(cuda::wide_matmul, args));
  CHECK(refused(cuda::wide_gated_matmul, args));
  args = one.ending(d);
  args.out_type = dtype::f32;
  CHECK(refused(cuda::halved_matmul, args));
  CHECK(refused(cuda::wide_matmul, args));
}

TEST_CASE("cuda products that split norms wait for each other") {
  TROUPE_EACH_TYPE_OF_16_BITS(type);
  // Feeds as a layer has them, many times over, with and without the overlap.
  constexpr std::int64_t cols = 1024;
  splitmix64 random{53};
  cudaStream_t stream = nullptr;
  REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  for (const std::int64_t rows : {64, 200}) {
    const split_norm_case one{type, {rows, cols, cols, cols}, random};
    std::vector<matrix> made;
    for (const bool early : {false, true, true}) {
      cuda::shortcuts_taken().early_launch = early;
      one.dresidual.send(one.residual.bytes.data());
      one.da.send(one.a.bytes.data());
      auto up = one.ending(one.da);
      up.ldo = cols;
      for (int i = 0; i < 40; ++i) {
        fine(cuda::halved_matmul(one.beginning(), stream));
        fine(cuda::wide_gated_matmul(up, stream));
      }
      REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
      made.push_back(one.residual);
      one.dresidual.fetch(made.back().bytes.data());
    }
    for (std::int64_t row = 0; row < rows; ++row)
      for (const matrix& again : made)
        CHECK(again.same_bits(made.front(), row, row, 1));
  }
  cuda::shortcuts_taken() = {};
  cudaStreamDestroy(stream);
}
