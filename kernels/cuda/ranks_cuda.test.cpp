// What joins the parts of ranks, and windows of random weights. Needs a GPU.
#include "kernels/cuda/testing.hpp"
#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <vector>

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::kernels::cuda::testing;
using cpu::testing::random_values;

TEST_CASE("cuda join_parts sums as a balanced tree") {
  splitmix64 random{11};
  for (const std::int32_t ranks : {1, 2, 4, 8})
    for (const std::int64_t count : {1, 255, 70'001}) {
      CAPTURE(ranks, count);
      const auto parts = random_values(random, ranks * count, 1);
      const mirror p{parts};
      std::vector<float> got(static_cast<std::size_t>(count));
      const mirror o{got};
      fine(cuda::join_parts({.parts = p.as<float>(),
                             .ranks = ranks,
                             .count = count,
                             .out = o.as<void>(),
                             .type = dtype::f32},
                            nullptr));
      o.fetch(got.data());
      std::vector<float> wanted = parts;
      for (std::int32_t step = 1; step < ranks; step *= 2)
        for (std::int32_t rank = 0; rank < ranks; rank += 2 * step)
          for (std::int64_t i = 0; i < count; ++i)
            wanted[static_cast<std::size_t>(rank * count + i)] +=
                wanted[static_cast<std::size_t>((rank + step) * count + i)];
      wanted.resize(static_cast<std::size_t>(count));
      CHECK(got == wanted);
    }
}

TEST_CASE("cuda join_columns puts the columns of ranks side by side") {
  for (const std::int32_t ranks : {2, 4})
    for (const std::int64_t cols : {7, 130, 1001}) {
      CAPTURE(ranks, cols);
      const std::int64_t rows = 3;
      const std::int64_t part = (cols + ranks - 1) / ranks;
      std::vector<float> parts(static_cast<std::size_t>(ranks * rows * part), -1.0F);
      std::vector<float> wanted;
      for (std::int64_t row = 0; row < rows; ++row)
        for (std::int64_t rank = 0; rank < ranks; ++rank) {
          const std::int64_t begin = cols * rank / ranks;
          for (std::int64_t c = begin; c < cols * (rank + 1) / ranks; ++c) {
            wanted.push_back(static_cast<float>(row * cols + c));
            parts[static_cast<std::size_t>((rank * rows + row) * part + c - begin)] = wanted.back();
          }
        }
      const mirror p{parts};
      std::vector<float> got(wanted.size());
      const mirror o{got};
      fine(cuda::join_columns({.parts = p.as<float>(),
                               .ranks = ranks,
                               .rows = rows,
                               .part_cols = part,
                               .out = o.as<float>(),
                               .cols = cols},
                              nullptr));
      o.fetch(got.data());
      CHECK(got == wanted);
    }
}

TEST_CASE("cuda fill_random makes a window of a matrix as it makes the whole") {
  constexpr std::int64_t rows = 6, cols = 10, first_row = 2, first_col = 5, window = 4;
  std::vector<float> whole(rows * cols), part(3 * window), wanted;
  const mirror w{whole}, p{part};
  fine(cuda::fill_random(
      {.out = w.as<void>(), .count = rows * cols, .type = dtype::f32, .seed = 9, .sigma = 0.5},
      nullptr));
  fine(cuda::fill_random({.out = p.as<void>(),
                          .count = 3 * window,
                          .type = dtype::f32,
                          .seed = 9,
                          .sigma = 0.5,
                          .first = first_row * cols + first_col,
                          .cols = window,
                          .row_stride = cols},
                         nullptr));
  w.fetch(whole.data());
  p.fetch(part.data());
  for (std::int64_t row = first_row; row < first_row + 3; ++row)
    for (std::int64_t c = first_col; c < first_col + window; ++c)
      wanted.push_back(whole[static_cast<std::size_t>(row * cols + c)]);
  CHECK(part == wanted);
}

TEST_CASE("cuda fill_random rounds to its type as the host does") {
  constexpr std::int64_t count = 70'001;
  // The smaller ones are no normal numbers in f16.
  for (const double sigma : {0.5, 1e-5})
    for (const dtype type : types) {
      CAPTURE(static_cast<int>(type), sigma);
      cpu::testing::matrix whole{dtype::f32, 1, count, count}, got{type, 1, count, count},
          wanted = got;
      const mirror w{whole}, g{got};
      cuda::fill_args args{.out = w.as<void>(), .count = count, .type = dtype::f32, .seed = 10};
      args.sigma = sigma;
      fine(cuda::fill_random(args, nullptr));
      args.out = g.as<void>();
      args.type = type;
      fine(cuda::fill_random(args, nullptr));
      w.fetch(whole.bytes.data());
      g.fetch(got.bytes.data());
      for (std::int64_t i = 0; i < count; ++i)
        wanted.set(0, i, whole.get(0, i));
      CHECK(got.same_bits(wanted, 0, 0, 1));
    }
}
