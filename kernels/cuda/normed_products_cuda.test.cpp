// Products that norm their rows, against kernels/reference, and chains of them. Needs a GPU.
#include "kernels/cuda/testing.hpp"
#include "kernels/reference/reference.hpp"

#include <catch2/catch.hpp>

#include <cmath>
#include <span>
#include <utility>
#include <vector>

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::kernels::cuda::testing;
using cpu::testing::matrix;
using cpu::testing::random_values;

namespace {

/// What rms_norm() makes of rows, in f64.
std::vector<double> norms_of(const matrix& residual, const std::vector<float>& weight, float eps) {
  const std::vector<double> all = residual.doubles(), by(weight.begin(), weight.end());
  const auto cols = static_cast<std::size_t>(residual.cols);
  std::vector<double> made;
  for (std::size_t row = 0; row < all.size(); row += cols) {
    const auto normed = reference::rms_norm(std::span{all}.subspan(row, cols), by, eps);
    made.insert(made.end(), normed.begin(), normed.end());
  }
  return made;
}

} // namespace

TEST_CASE("cuda products that norm their rows") {
  TROUPE_EACH_TYPE_OF_16_BITS(type);
  constexpr float eps = 1e-3F;
  const std::vector<std::pair<std::int64_t, std::int64_t>> shapes{
      {7, 512}, {3000, 512}, {260, 1024}, {33, 1536}, {700, 2048}, {290, 4096}};
  splitmix64 random{41};
  for (std::int64_t rows = 1; rows <= 8; ++rows)
    for (const auto& [n, k] : shapes) {
      CAPTURE(rows, n, k);
      matrix residual{dtype::f32, rows, k, k + 4}, w{type, 2 * n, k, k}, out{type, rows, n, n + 3};
      residual.fill(random, 3);
      w.fill(random, 1 / std::sqrt(static_cast<float>(k)));
      const auto weight = random_values(random, k, 1);
      const mirror r{residual}, dw{w}, dn{weight}, d{out}, da{matrix{type, rows, k, k}};
      cuda::ordered_matmul_args args{.a = da.as<void>(),
                                     .lda = k,
                                     .w = dw.as<void>(),
                                     .out = d.as<void>(),
                                     .ldo = n + 3,
                                     .m = rows,
                                     .n = n,
                                     .k = k,
                                     .type = type,
                                     .out_type = type};
      const cuda::normed_source from{
          .residual = r.as<float>(), .stride = k + 4, .weight = dn.as<float>(), .eps = eps};
      if (rows * k > 4096) {
        CHECK(!cuda::takes_normed(args, from));
        CHECK(cuda::streamed_normed_matmul(args, from, nullptr).error().code == errc::unsupported);
        continue;
      }
      d.send(std::vector<std::byte>(out.bytes.size(), std::byte{0xFF}).data());
      fine(cuda::streamed_normed_matmul(args, from, nullptr));
      d.fetch(out.bytes.data());
      auto truth = reference::linear(norms_of(residual, weight, eps), w.doubles(), k);
      for (std::int64_t row = 0; row < rows; ++row)
        for (std::int64_t i = 0; i < n; ++i)
          truth[static_cast<std::size_t>(row * n + i)] =
              truth[static_cast<std::size_t>(row * 2 * n + i)];
      truth.resize(static_cast<std::size_t>(rows * n));
      CHECK(cpu::testing::worst_error(out, truth, 1) < tolerance(type));
      // The gated one as the two kernels that it stands for.
      fine(cuda::rms_norm({.residual = r.as<float>(),
                           .residual_stride = k + 4,
                           .weight = dn.as<float>(),
                           .eps = eps,
                           .rows = rows,
                           .cols = k,
                           .type = type,
                           .out = da.as<void>(),
                           .out_stride = k},
                          nullptr));
      fine(cuda::streamed_gated_matmul(args, nullptr));
      matrix wanted = out;
      d.fetch(wanted.bytes.data());
      d.send(std::vector<std::byte>(out.bytes.size(), std::byte{0xFF}).data());
      fine(cuda::streamed_normed_gated_matmul(args, from, nullptr));
      d.fetch(out.bytes.data());
      CHECK(cpu::testing::worst_error(out, wanted.doubles(), 1) < tolerance(type));
      for (const int which : {0, 1, 2}) {
        cuda::ordered_matmul_args wrong = args;
        wrong.k -= which == 0 ? 64 : 0;
        wrong.add = which == 1;
        wrong.out_type = which == 2 ? dtype::f32 : type;
        CHECK(cuda::streamed_normed_matmul(wrong, from, nullptr).error().code == errc::unsupported);
      }
    }
}

TEST_CASE("cuda products that norm wait for each other") {
  TROUPE_EACH_TYPE_OF_16_BITS(type);
  // Feeds as a layer has them, many times over, with and without the overlap.
  constexpr std::int64_t most = 2, cols = 2048;
  splitmix64 random{42};
  matrix gated{type, most, cols, cols}, w{type, 2 * cols, cols, cols}, down{type, cols, cols, cols},
      residual{dtype::f32, most, cols, cols};
  residual.fill(random, 1);
  w.fill(random, 1 / std::sqrt(static_cast<float>(cols)));
  down.fill(random, 1 / std::sqrt(static_cast<float>(cols)));
  const auto weight = random_values(random, cols, 1);
  const mirror dw{w}, ddown{down}, n{weight}, g{gated}, r{residual};
  cudaStream_t stream = nullptr;
  REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  for (const std::int64_t rows : {1, 2}) {
    std::vector<matrix> made;
    for (const bool early : {false, true, true}) {
      cuda::shortcuts_taken().early_launch = early;
      r.send(residual.bytes.data());
      REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
      cuda::ordered_matmul_args up{.w = dw.as<void>(),
                                   .out = g.as<void>(),
                                   .ldo = cols,
                                   .m = rows,
                                   .n = cols,
                                   .k = cols,
                                   .type = type,
                                   .out_type = type};
      cuda::ordered_matmul_args back = up;
      back.a = g.as<void>();
      back.lda = cols;
      back.w = ddown.as<void>();
      back.out = r.as<void>();
      back.out_type = dtype::f32;
      back.add = true;
      const cuda::normed_source from{
          .residual = r.as<float>(), .stride = cols, .weight = n.as<float>(), .eps = 1e-6F};
      for (int i = 0; i < 60; ++i) {
        fine(cuda::streamed_normed_gated_matmul(up, from, stream));
        fine(cuda::streamed_matmul(back, stream));
      }
      REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
      made.push_back(residual);
      r.fetch(made.back().bytes.data());
    }
    for (std::int64_t row = 0; row < rows; ++row)
      for (const matrix& one : made)
        CHECK(one.same_bits(made.front(), row, row, 1));
  }
  cuda::shortcuts_taken() = {};
  cudaStreamDestroy(stream);
}
