// Each kernel against kernels/reference, over random shapes, strides and block tables. Needs a GPU.
#include "kernels/cpu/testing.hpp"
#include "kernels/cuda/matmul.hpp"
#include "kernels/cuda/ops.hpp"
#include "kernels/reference/reference.hpp"

#include <catch2/catch.hpp>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <numeric>

using namespace troupe;
using namespace troupe::kernels;
using cpu::testing::matrix;
using cpu::testing::random_values;

namespace {

/// A copy on the device of what the host has, and back.
class mirror {
public:
  explicit mirror(std::size_t bytes) : bytes_{bytes} {
    REQUIRE(cudaMalloc(&data_, std::max<std::size_t>(bytes, 256)) == cudaSuccess);
    REQUIRE(cudaMemset(data_, 0xFF, bytes) == cudaSuccess);
  }
  explicit mirror(const matrix& from) : mirror{from.bytes.size()} { send(from.bytes.data()); }
  template <class T>
  explicit mirror(const std::vector<T>& from) : mirror{from.size() * sizeof(T)} {
    send(from.data());
  }
  mirror(const mirror&) = delete;
  mirror& operator=(const mirror&) = delete;
  ~mirror() { cudaFree(data_); }

  void send(const void* from) const {
    REQUIRE(cudaMemcpy(data_, from, bytes_, cudaMemcpyHostToDevice) == cudaSuccess);
  }
  void fetch(void* to) const {
    const cudaError_t ran = cudaDeviceSynchronize();
    CAPTURE(cudaGetErrorString(ran));
    REQUIRE(ran == cudaSuccess);
    REQUIRE(cudaMemcpy(to, data_, bytes_, cudaMemcpyDeviceToHost) == cudaSuccess);
  }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

private:
  void* data_ = nullptr;
  std::size_t bytes_;
};

double tolerance(dtype type) { return type == dtype::f32 ? 2e-5 : 1.2e-2; }

void fine(const result<void>& done) {
  CAPTURE(done ? "" : done.error().note);
  REQUIRE(done);
}

std::vector<double> doubles(const std::vector<float>& from) { return {from.begin(), from.end()}; }

constexpr dtype types[] = {dtype::f32, dtype::bf16};

} // namespace

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
      }
}

namespace {

/// The kernels for few rows.
struct own_product {
  result<void> (*multiply)(const cuda::ordered_matmul_args&, cuda::stream_ref);
  result<void> (*gated)(const cuda::ordered_matmul_args&, cuda::stream_ref);
  std::vector<std::int64_t> rows;
};

const std::vector<own_product> own_products{
    {cuda::skinny_matmul, cuda::skinny_gated_matmul, {1, 2, 3, 4, 5, 6, 7, 8}},
    {cuda::narrow_matmul, cuda::narrow_gated_matmul, {1, 2, 7, 8, 9, 16, 17, 31, 32}}};

} // namespace

TEST_CASE("cuda products of few rows") {
  const std::vector<std::pair<std::int64_t, std::int64_t>> shapes{
      {1, 8}, {7, 264}, {200, 512}, {131, 4096}, {64, 1032}};
  splitmix64 random{4};
  for (const dtype out_type : {dtype::bf16, dtype::f32})
    for (const own_product& own : own_products)
      for (const std::int64_t rows : own.rows)
        for (const auto& [n, k] : shapes) {
          CAPTURE(static_cast<int>(out_type), &own - own_products.data(), rows, n, k);
          matrix a{dtype::bf16, rows, k, k + 8}, w{dtype::bf16, n, k, k},
              out{out_type, rows, n, n + 3};
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
                                         .type = dtype::bf16,
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

TEST_CASE("cuda gated product of few rows") {
  const std::vector<std::pair<std::int64_t, std::int64_t>> shapes{
      {1, 8}, {7, 264}, {130, 2048}, {5000, 32}};
  splitmix64 random{14};
  for (const own_product& own : own_products)
    for (const std::int64_t rows : own.rows)
      for (const auto& [n, k] : shapes) {
        CAPTURE(&own - own_products.data(), rows, n, k);
        matrix a{dtype::bf16, rows, k, k}, w{dtype::bf16, 2 * n, k, k},
            both{dtype::bf16, rows, 2 * n, 2 * n}, out{dtype::bf16, rows, n, n + 3},
            wanted{dtype::bf16, rows, n, n + 3};
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
                                       .type = dtype::bf16,
                                       .out_type = dtype::bf16};
        fine(own.multiply(args, nullptr));
        fine(cuda::silu_mul({.gate_up = db.as<void>(),
                             .stride = 2 * n,
                             .out = dwanted.as<void>(),
                             .out_stride = n + 3,
                             .type = dtype::bf16,
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
      }
}

TEST_CASE("cuda kernels that start early wait for each other") {
  // A chain as a layer has it, many times over, on a stream of its own: with and without the
  // overlap the bits are the same.
  constexpr std::int64_t rows = 2;
  constexpr std::int64_t cols = 2048;
  splitmix64 random{15};
  matrix delta{dtype::bf16, rows, cols, cols}, w{dtype::bf16, 2 * cols, cols, cols},
      down{dtype::bf16, cols, cols, cols}, residual{dtype::f32, rows, cols, cols};
  delta.fill(random, 1);
  residual.fill(random, 1);
  w.fill(random, 1 / std::sqrt(static_cast<float>(cols)));
  down.fill(random, 1 / std::sqrt(static_cast<float>(cols)));
  const auto weight = random_values(random, cols, 1);
  const mirror dw{w}, ddown{down}, n{weight}, normed{delta}, gated{delta}, dd{delta}, r{residual};
  cudaStream_t stream = nullptr;
  REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  const auto multiply = [&](const mirror& a, const mirror& by, const mirror& out) {
    return cuda::ordered_matmul_args{.a = a.as<void>(),
                                     .lda = cols,
                                     .w = by.as<void>(),
                                     .out = out.as<void>(),
                                     .ldo = cols,
                                     .m = rows,
                                     .n = cols,
                                     .k = cols,
                                     .type = dtype::bf16,
                                     .out_type = dtype::bf16};
  };
  std::vector<matrix> made;
  for (const own_product& own : own_products)
    for (const bool early : {false, true, true}) {
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
                             .type = dtype::bf16,
                             .out = normed.as<void>(),
                             .out_stride = cols},
                            stream));
        fine(own.gated(multiply(normed, dw, gated), stream));
        fine(own.multiply(multiply(gated, ddown, dd), stream));
      }
      REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
      made.emplace_back(dtype::f32, rows, cols, cols);
      r.fetch(made.back().bytes.data());
    }
  cuda::shortcuts_taken() = {};
  cudaStreamDestroy(stream);
  for (std::int64_t row = 0; row < rows; ++row) {
    CHECK(made[1].same_bits(made[0], row, row, 1));
    CHECK(made[2].same_bits(made[0], row, row, 1));
    CHECK(made[4].same_bits(made[3], row, row, 1));
    CHECK(made[5].same_bits(made[3], row, row, 1));
  }
}

namespace {

/// Sequences of random lengths on shuffled blocks, with q, k and v for all their positions.
struct paged_batch {
  struct member {
    std::int32_t past;
    std::int32_t rows;
  };

  dtype type;
  std::int32_t heads, kv_heads, dim, block_size;
  std::vector<member> members;
  std::vector<cuda::batch_row> batch;
  std::vector<cuda::sequence_rows> sequences;
  std::vector<std::int32_t> tables;
  std::int64_t blocks = 0;

  void plan(splitmix64& random) {
    for (const member& m : members)
      blocks += (m.past + m.rows + block_size - 1) / block_size;
    blocks += 3;
    std::vector<std::int32_t> free(static_cast<std::size_t>(blocks));
    std::iota(free.begin(), free.end(), 0);
    for (std::size_t i = free.size(); i > 1; --i)
      std::swap(free[i - 1], free[random.below(i)]);
    for (const member& m : members) {
      const auto index = static_cast<std::int32_t>(sequences.size());
      const auto first = static_cast<std::int32_t>(tables.size());
      sequences.push_back({static_cast<std::int32_t>(batch.size()), m.rows, m.past, first});
      for (std::int32_t p = 0; p < m.past + m.rows; ++p) {
        if (p % block_size == 0) {
          tables.push_back(free.back());
          free.pop_back();
        }
        if (p >= m.past)
          batch.push_back({0, p, index, slot(index, p)});
      }
    }
  }
  std::int32_t slot(std::int32_t sequence, std::int32_t position) const {
    const auto at = sequences[static_cast<std::size_t>(sequence)].table_begin;
    return tables[static_cast<std::size_t>(at + position / block_size)] * block_size +
           position % block_size;
  }
  std::int64_t place(std::int64_t slot, std::int64_t kv_head) const {
    return ((slot / block_size * kv_heads + kv_head) * block_size + slot % block_size) * dim;
  }
  std::int64_t cache_elements() const { return blocks * kv_heads * block_size * dim; }
};

/// Items as the executor makes them: all by 16 rows (with splits or whole), or by 64 where many.
struct items {
  std::vector<cuda::attention_item> prefill, decode, join;
  std::int32_t partials = 0;

  items(const paged_batch& b, bool tiles_of_64, bool splits) {
    const std::int32_t group = b.heads / b.kv_heads;
    for (std::int32_t s = 0; s < static_cast<std::int32_t>(b.members.size()); ++s) {
      const auto& m = b.members[static_cast<std::size_t>(s)];
      const std::int32_t rows = m.rows * group;
      if (tiles_of_64 && rows > 16) {
        for (std::int32_t at = 0; at < rows; at += cuda::prefill_tile_rows)
          prefill.push_back({s, at, -1, -1});
        continue;
      }
      for (std::int32_t at = 0; at < rows; at += cuda::decode_tile_rows) {
        // A tile has the splits that its last row sees.
        const std::int32_t last =
            m.past + (std::min(at + cuda::decode_tile_rows, rows) - 1) / group;
        const std::int32_t count = last / cuda::split_positions + 1;
        if (!splits || count == 1) {
          decode.push_back({s, at, -1, -1});
          continue;
        }
        join.push_back({s, at, count, partials});
        for (std::int32_t i = 0; i < count; ++i)
          decode.push_back({s, at, i, partials++});
      }
    }
  }
};

matrix attend(const paged_batch& b, const mirror& q, const mirror& k, const mirror& v,
              const items& by) {
  const std::int64_t rows = static_cast<std::int64_t>(b.batch.size());
  const std::int64_t width = std::int64_t{b.heads} * b.dim;
  matrix out{b.type, rows, width, width + 8};
  const mirror o{out}, batch{b.batch}, sequences{b.sequences}, tables{b.tables};
  const mirror prefill{by.prefill}, decode{by.decode}, join{by.join};
  const std::vector<std::int32_t> counts{static_cast<std::int32_t>(by.decode.size()),
                                         static_cast<std::int32_t>(by.join.size())};
  const mirror c{counts};
  const mirror partials{static_cast<std::size_t>(by.partials + 1) *
                        static_cast<std::size_t>(b.kv_heads * cuda::partial_floats(b.dim)) * 4};
  fine(cuda::attention({.q = q.as<void>(),
                        .q_stride = width + 8,
                        .heads = b.heads,
                        .cache = {.k = k.as<void>(),
                                  .v = v.as<void>(),
                                  .type = b.type,
                                  .blocks = b.blocks,
                                  .block_size = b.block_size,
                                  .kv_heads = b.kv_heads,
                                  .dim = b.dim},
                        .rows = rows,
                        .batch = batch.as<cuda::batch_row>(),
                        .sequences = sequences.as<cuda::sequence_rows>(),
                        .block_tables = tables.as<std::int32_t>(),
                        .prefill = prefill.as<cuda::attention_item>(),
                        .prefill_items = static_cast<std::int64_t>(by.prefill.size()),
                        .decode = decode.as<cuda::attention_item>(),
                        .decode_count = c.as<std::int32_t>(),
                        .join = join.as<cuda::attention_item>(),
                        .join_count = c.as<std::int32_t>() + 1,
                        .decode_items_max = static_cast<std::int64_t>(by.decode.size()),
                        .join_items_max = static_cast<std::int64_t>(by.join.size()),
                        .partials = partials.as<float>(),
                        .scale = 1.0F / std::sqrt(static_cast<float>(b.dim)),
                        .out = o.as<void>(),
                        .out_stride = width + 8},
                       nullptr));
  o.fetch(out.bytes.data());
  return out;
}

/// The whole of one shape: reference, and equal bits however the items are cut.
void check_attention(paged_batch b, std::uint64_t seed) {
  splitmix64 random{seed};
  b.plan(random);
  const std::int64_t width = std::int64_t{b.heads} * b.dim;
  const auto rows = static_cast<std::int64_t>(b.batch.size());
  matrix q{b.type, rows, width, width + 8};
  q.fill(random, 1.5F);
  // What no position owns is NaN: it must not be seen.
  matrix k{b.type, 1, b.cache_elements(), b.cache_elements()};
  std::fill(k.bytes.begin(), k.bytes.end(), std::byte{0xFF});
  matrix v = k;
  std::vector<double> truth;
  for (std::size_t s = 0; s < b.members.size(); ++s) {
    const auto [past, count] = b.members[s];
    std::vector<double> qs, ks, vs;
    for (std::int32_t p = 0; p < past + count; ++p)
      for (std::int64_t h = 0; h < b.kv_heads; ++h) {
        const auto values = random_values(random, 2 * b.dim, 1);
        const std::int64_t at = b.place(b.slot(static_cast<std::int32_t>(s), p), h);
        for (std::int64_t d = 0; d < b.dim; ++d) {
          k.set(0, at + d, values[static_cast<std::size_t>(2 * d)]);
          v.set(0, at + d, values[static_cast<std::size_t>(2 * d + 1)]);
          ks.push_back(k.get(0, at + d));
          vs.push_back(v.get(0, at + d));
        }
      }
    for (std::int64_t i = 0; i < count * width; ++i)
      qs.push_back(q.get(b.sequences[s].row_begin + i / width, i % width));
    const auto part = reference::attention({.rows = count,
                                            .positions = past + count,
                                            .heads = b.heads,
                                            .kv_heads = b.kv_heads,
                                            .dim = b.dim,
                                            .scale = 1 / std::sqrt(static_cast<double>(b.dim))},
                                           qs, ks, vs);
    truth.insert(truth.end(), part.begin(), part.end());
  }
  const mirror dq{q}, dk{k}, dv{v};
  const matrix whole = attend(b, dq, dk, dv, {b, false, false});
  CHECK(cpu::testing::worst_error(whole, truth, 1) < tolerance(b.type));
  for (const bool tiles_of_64 : {false, true})
    for (const bool splits : {false, true}) {
      CAPTURE(tiles_of_64, splits);
      CHECK(attend(b, dq, dk, dv, {b, tiles_of_64, splits}).same_bits(whole, 0, 0, rows));
    }
}

} // namespace

TEST_CASE("cuda attention on the tensor cores") {
  const std::vector<paged_batch::member> mixed{{0, 1},   {0, 70},   {255, 1}, {256, 1}, {700, 1},
                                               {300, 3}, {510, 40}, {63, 2},  {0, 300}};
  for (const std::int32_t dim : {64, 128})
    for (const std::int32_t group : {1, 2, 4, 7, 20}) {
      CAPTURE(dim, group);
      check_attention({dtype::bf16, 2 * group, 2, dim, group == 4 ? 32 : 16, mixed, {}, {}, {}},
                      static_cast<std::uint64_t>(dim + group));
    }
}

TEST_CASE("cuda attention of long decodes") {
  check_attention({dtype::bf16, 8, 2, 128, 16, {{4095, 1}, {2047, 1}, {3000, 2}}, {}, {}, {}}, 5);
}

TEST_CASE("cuda attention by rows") {
  const std::vector<paged_batch::member> mixed{{0, 1}, {0, 30}, {63, 1}, {64, 5}, {200, 1}};
  for (const dtype type : types)
    for (const std::int32_t dim : {2, 16, 32, 80, 200, 512})
      for (const std::int32_t group : {1, 3}) {
        CAPTURE(static_cast<int>(type), dim, group);
        check_attention({type, 2 * group, 2, dim, 16, mixed, {}, {}, {}},
                        static_cast<std::uint64_t>(dim));
      }
}

TEST_CASE("cuda rope_store norms, turns and stores") {
  splitmix64 random{9};
  for (const dtype type : types)
    for (const std::int32_t dim : {16, 64, 128, 200})
      for (const bool norms : {false, true}) {
        CAPTURE(static_cast<int>(type), dim, norms);
        paged_batch b{type, 6, 2, dim, 16, {{3, 9}, {30, 1}}, {}, {}, {}};
        b.plan(random);
        const std::int64_t rows = 10, half = dim / 2;
        const std::int64_t width = std::int64_t{b.heads + 2 * b.kv_heads} * dim;
        matrix qkv{type, rows, width, width + 8}, q{type, rows, 6 * dim, 6 * dim + 2};
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
        fine(cuda::rope_store({.qkv = dx.as<void>(),
                               .qkv_stride = width + 8,
                               .heads = 6,
                               .cache = {.k = dk.as<void>(),
                                         .v = dv.as<void>(),
                                         .type = type,
                                         .blocks = b.blocks,
                                         .block_size = 16,
                                         .kv_heads = 2,
                                         .dim = dim},
                               .batch = batch.as<cuda::batch_row>(),
                               .rows = rows,
                               .q_norm = norms ? qn.as<float>() : nullptr,
                               .k_norm = norms ? kn.as<float>() : nullptr,
                               .eps = 1e-6F,
                               .cos = c.as<float>(),
                               .sin = s.as<float>(),
                               .q = dq.as<void>(),
                               .q_stride = 6 * dim + 2},
                              nullptr));
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

TEST_CASE("cuda launchers refuse what no kernel takes") {
  CHECK(cuda::rms_norm({.rows = 1, .cols = 20000}, nullptr).error().code == errc::bad_shape);
  CHECK(cuda::silu_mul({.type = dtype::f16, .rows = 1, .cols = 8}, nullptr).error().code ==
        errc::unsupported);
  CHECK(cuda::attention({.heads = 3, .cache = {.kv_heads = 2, .dim = 64}}, nullptr).error().code ==
        errc::bad_shape);
  CHECK(
      cuda::attention({.heads = 2, .cache = {.kv_heads = 2, .dim = 1024}}, nullptr).error().code ==
      errc::unsupported);
}
