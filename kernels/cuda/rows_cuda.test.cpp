// Operations on rows against kernels/reference, over random shapes and strides. Needs a GPU.
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

TEST_CASE("cuda rms_norm adds and norms") {
  splitmix64 random{1};
  for (const dtype type : types)
    for (const std::int64_t cols : {1, 8, 33, 320, 1024, 4096, 5001, 16384})
      for (const bool picked : {false, true}) {
        CAPTURE(static_cast<int>(type), cols, picked);
        const std::int64_t rows = 5;
        const std::int64_t stride = cols + (cols % 4 == 0 ? 4 : 3);
        matrix residual{dtype::f32, rows, cols, stride};
        matrix delta{type, rows, cols, stride};
        residual.fill(random, 1);
        delta.fill(random, 1);
        const auto weight = random_values(random, cols, 1);
        std::vector<double> sum;
        for (std::int64_t i = 0; i < rows * cols; ++i)
          sum.push_back(residual.get(i / cols, i % cols) + delta.get(i / cols, i % cols));
        const auto truth = reference::rms_norm(sum, doubles(weight), 1e-5);
        const std::vector<std::int32_t> pick{3, 0, 4};
        const mirror r{residual}, d{delta}, w{weight}, p{pick};
        matrix out{type, picked ? 3 : rows, cols, stride};
        const mirror o{out};
        fine(cuda::rms_norm({.residual = r.as<float>(),
                             .residual_stride = stride,
                             .delta = d.as<void>(),
                             .delta_stride = stride,
                             .weight = w.as<float>(),
                             .eps = 1e-5F,
                             .pick = picked ? p.as<std::int32_t>() : nullptr,
                             .rows = out.rows,
                             .cols = cols,
                             .type = type,
                             .out = o.as<void>(),
                             .out_stride = stride},
                            nullptr));
        o.fetch(out.bytes.data());
        std::vector<double> wanted = truth;
        if (picked) {
          wanted.clear();
          for (const std::int32_t row : pick)
            wanted.insert(wanted.end(), truth.begin() + row * cols,
                          truth.begin() + (row + 1) * cols);
        }
        CHECK(cpu::testing::worst_error(out, wanted, 1) < tolerance(type));
        r.fetch(residual.bytes.data());
        if (!picked)
          CHECK(cpu::testing::worst_error(residual, sum, 1) < 1e-6);
      }
}

TEST_CASE("cuda pick_rows puts rows one behind the other") {
  splitmix64 random{4};
  for (const dtype type : types)
    for (const std::int64_t cols : {1, 8, 33, 320, 4096}) {
      const std::int64_t stride = cols + (cols % 8 == 0 ? 8 : 3);
      matrix from{type, 7, cols, stride};
      from.fill(random, 1);
      const std::vector<std::int32_t> pick{1, 2, 2, 6};
      for (const bool picked : {true, false}) {
        CAPTURE(static_cast<int>(type), cols, picked);
        matrix to{type, 4, cols, cols};
        const mirror f{from}, t{to}, p{pick};
        fine(cuda::pick_rows({.from = f.as<void>(),
                              .from_stride = stride,
                              .pick = picked ? p.as<std::int32_t>() : nullptr,
                              .to = t.as<void>(),
                              .to_stride = cols,
                              .type = type,
                              .rows = 4,
                              .cols = cols},
                             nullptr));
        t.fetch(to.bytes.data());
        for (std::int64_t i = 0; i < 4; ++i)
          for (std::int64_t c = 0; c < cols; ++c)
            REQUIRE(to.get(i, c) == from.get(picked ? pick[static_cast<std::size_t>(i)] : i, c));
      }
    }
}

TEST_CASE("cuda silu_mul and embed") {
  splitmix64 random{2};
  for (const dtype type : types)
    for (const std::int64_t cols : {1, 7, 96, 864, 3072}) {
      CAPTURE(static_cast<int>(type), cols);
      matrix both{type, 9, 2 * cols, 2 * cols + 8};
      both.fill(random, 2);
      std::vector<double> gate, up;
      for (std::int64_t i = 0; i < 9 * cols; ++i) {
        gate.push_back(both.get(i / cols, i % cols));
        up.push_back(both.get(i / cols, cols + i % cols));
      }
      matrix out{type, 9, cols, cols + 8};
      const mirror b{both}, o{out};
      fine(cuda::silu_mul({.gate_up = b.as<void>(),
                           .stride = both.stride,
                           .out = o.as<void>(),
                           .out_stride = out.stride,
                           .type = type,
                           .rows = 9,
                           .cols = cols},
                          nullptr));
      o.fetch(out.bytes.data());
      CHECK(cpu::testing::worst_error(out, reference::silu_mul(gate, up), 1) < tolerance(type));

      matrix table{type, 20, cols, cols};
      table.fill(random, 1);
      const std::vector<cuda::batch_row> batch{{.token = 7}, {.token = -2}, {.token = 19}};
      const std::vector<std::int32_t> sampled{3, 11};
      matrix rows{dtype::f32, 3, cols, cols + 5};
      const mirror t{table}, n{batch}, s{sampled}, e{rows};
      fine(cuda::embed({.table = t.as<void>(),
                        .type = type,
                        .batch = n.as<cuda::batch_row>(),
                        .sampled = s.as<std::int32_t>(),
                        .out = e.as<float>(),
                        .out_stride = rows.stride,
                        .rows = 3,
                        .cols = cols},
                       nullptr));
      e.fetch(rows.bytes.data());
      const std::int64_t tokens[] = {7, 11, 19};
      for (std::int64_t i = 0; i < 3 * cols; ++i)
        REQUIRE(rows.get(i / cols, i % cols) == table.get(tokens[i / cols], i % cols));
    }
}

TEST_CASE("cuda launchers refuse what no kernel takes") {
  CHECK(cuda::rms_norm({.rows = 1, .cols = 20000}, nullptr).error().code == errc::bad_shape);
  CHECK(cuda::silu_mul({.rows = 1, .cols = 8}, nullptr).error().code == errc::bad_shape);
  // Outputs have the type of the operands or are f32.
  for (const dtype out_type : {dtype::bf16, dtype::f16})
    for (const auto multiply :
         {cuda::ordered_matmul, cuda::skinny_matmul, cuda::streamed_matmul, cuda::wide_matmul})
      CHECK(multiply({.lda = 16,
                      .ldo = 8,
                      .m = 1,
                      .n = 8,
                      .k = 16,
                      .type = out_type == dtype::bf16 ? dtype::f16 : dtype::bf16,
                      .out_type = out_type},
                     nullptr)
                .error()
                .code == errc::unsupported);
  CHECK(cuda::attention({.heads = 3, .cache = {.kv_heads = 2, .dim = 64}}, nullptr).error().code ==
        errc::bad_shape);
  CHECK(
      cuda::attention({.heads = 2, .cache = {.kv_heads = 2, .dim = 1024}}, nullptr).error().code ==
      errc::unsupported);
}
