#include "kernels/cpu/ops.hpp"
#include "kernels/cpu/testing.hpp"
#include "kernels/reference/reference.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::kernels::cpu;
using namespace troupe::kernels::cpu::testing;

namespace {

constexpr double theta = 10000;

struct shape {
  std::int32_t heads = 4;
  std::int32_t kv_heads = 2;
  std::int32_t dim = 32;
  std::int32_t rotary_dim = 32;
  std::int32_t block_size = 16;
  dtype type = dtype::bf16;
  bool norms = false;
};

/// A cache whose unwritten memory is NaN, with tables of permuted blocks, and what a model adds to
/// it: rope tables, norm weights.
class paged {
public:
  paged(const shape& s, std::int64_t blocks, std::uint64_t seed)
      : s_{s}, random_{seed}, k_{make(blocks)}, v_{make(blocks)}, cos_{dtype::f32, table_positions,
                                                                       s.rotary_dim / 2,
                                                                       s.rotary_dim / 2},
        sin_{cos_}, q_norm_{dtype::f32, 1, s.dim, s.dim}, k_norm_{q_norm_} {
    for (std::int64_t i = 0; i < blocks; ++i)
      free_.push_back(static_cast<block_id>(i));
    for (std::size_t i = free_.size(); i > 1; --i)
      std::swap(free_[i - 1], free_[random_.below(i)]);
    for (std::int64_t i = 0; i < table_positions * (s.rotary_dim / 2); ++i) {
      const std::int64_t pair = i % (s.rotary_dim / 2);
      const double angle = double(i / (s.rotary_dim / 2)) *
                           std::pow(theta, -2.0 * double(pair) / double(s.rotary_dim));
      cos_.floats()[i] = static_cast<float>(std::cos(angle));
      sin_.floats()[i] = static_cast<float>(std::sin(angle));
    }
    splitmix64 fixed{99};
    q_norm_.fill(fixed, 1.0F);
    k_norm_.fill(fixed, 1.0F);
  }

  std::vector<block_id> table(std::int64_t positions) {
    const auto count = static_cast<std::size_t>((positions + s_.block_size - 1) / s_.block_size);
    std::vector<block_id> blocks(free_.end() - std::ptrdiff_t(count), free_.end());
    free_.resize(free_.size() - count);
    return blocks;
  }

  /// Runs rope_store and attention over qkv; returns the output.
  matrix run(team& t, matrix& qkv, const std::vector<sequence_rows>& sequences, dtype out_type) {
    const std::int64_t width = std::int64_t{s_.heads} * s_.dim;
    matrix q{s_.type, qkv.rows, width, width + 6};
    matrix out{out_type, qkv.rows, width, width + 2};
    rope_store_args store{.qkv = qkv.floats(),
                          .qkv_stride = qkv.stride,
                          .heads = s_.heads,
                          .cache = cache(),
                          .sequences = sequences,
                          .cos = cos_.floats(),
                          .sin = sin_.floats(),
                          .table_positions = table_positions,
                          .rotary_dim = s_.rotary_dim,
                          .q = q.data(),
                          .q_stride = q.stride};
    if (s_.norms) {
      store.q_norm = q_norm_.floats();
      store.k_norm = k_norm_.floats();
    }
    const attention_args attend{.q = q.data(),
                                .q_stride = q.stride,
                                .heads = s_.heads,
                                .cache = cache(),
                                .sequences = sequences,
                                .scale = 1.0F / std::sqrt(float(s_.dim)),
                                .out = out.data(),
                                .out_stride = out.stride,
                                .out_type = out_type};
    REQUIRE(check(store));
    REQUIRE(check(attend));
    t.run([&](member& m) {
      rope_store(m, store);
      m.sync();
      attention(m, attend);
    });
    return out;
  }

  /// What the output should be for one whole sequence of rows of qkv.
  std::vector<double> truth(const matrix& qkv) {
    std::vector<double> q, k, v;
    const auto rounded = [&](double x) {
      return s_.type == dtype::bf16 ? double(from_bf16(to_bf16(float(x)))) : x;
    };
    const auto head = [&](std::int64_t row, std::int64_t number, const matrix* norm) {
      std::vector<double> x;
      for (std::int64_t d = 0; d < s_.dim; ++d)
        x.push_back(qkv.get(row, number * s_.dim + d));
      if (norm != nullptr && s_.norms)
        x = reference::rms_norm(x, norm->doubles(), 1e-6);
      if (norm != nullptr)
        x = reference::rope(x, row, s_.rotary_dim, theta);
      std::transform(x.begin(), x.end(), x.begin(), rounded);
      return x;
    };
    const auto append = [](std::vector<double>& to, const std::vector<double>& x) {
      to.insert(to.end(), x.begin(), x.end());
    };
    for (std::int64_t row = 0; row < qkv.rows; ++row) {
      for (std::int64_t h = 0; h < s_.heads; ++h)
        append(q, head(row, h, &q_norm_));
      for (std::int64_t h = 0; h < s_.kv_heads; ++h)
        append(k, head(row, s_.heads + h, &k_norm_));
      for (std::int64_t h = 0; h < s_.kv_heads; ++h)
        append(v, head(row, s_.heads + s_.kv_heads + h, nullptr));
    }
    return reference::attention({.rows = qkv.rows,
                                 .positions = qkv.rows,
                                 .heads = s_.heads,
                                 .kv_heads = s_.kv_heads,
                                 .dim = s_.dim,
                                 .scale = 1 / std::sqrt(double(s_.dim))},
                                q, k, v);
  }

  kv_cache cache() {
    return {.k = k_.data(),
            .v = v_.data(),
            .type = s_.type,
            .blocks = k_.rows,
            .block_size = s_.block_size,
            .kv_heads = s_.kv_heads,
            .dim = s_.dim};
  }

  static constexpr std::int64_t table_positions = 600;

private:
  matrix make(std::int64_t blocks) const {
    const auto bytes = kv_block_bytes(s_.type, s_.block_size, s_.kv_heads, s_.dim);
    // Zero columns used: all NaN, as a block may be that another sequence has left.
    return {s_.type, blocks, 0, std::int64_t(bytes / size_of(s_.type))};
  }

  shape s_;
  splitmix64 random_;
  std::vector<block_id> free_;
  matrix k_, v_, cos_, sin_, q_norm_, k_norm_;
};

matrix make_qkv(splitmix64& random, const shape& s, std::int64_t rows) {
  const std::int64_t width = std::int64_t{s.heads + 2 * s.kv_heads} * s.dim;
  matrix qkv{dtype::f32, rows, width, width + 1};
  qkv.fill(random, 1.0F);
  return qkv;
}

std::vector<shape> shapes() {
  return {
      {},
      {.heads = 5, .kv_heads = 5, .dim = 64, .rotary_dim = 64, .type = dtype::f32},
      {.heads = 6, .kv_heads = 2, .dim = 24, .rotary_dim = 8, .block_size = 32, .norms = true},
      {.heads = 3, .kv_heads = 1, .dim = 6, .rotary_dim = 6, .block_size = 48, .type = dtype::f32},
      {.heads = 32, .kv_heads = 1, .dim = 16, .rotary_dim = 16, .block_size = 64},
      {.heads = 4, .kv_heads = 2, .dim = 128, .rotary_dim = 128, .type = dtype::f32, .norms = true},
  };
}

} // namespace

TEST_CASE("paged attention is close to the reference on every path") {
  splitmix64 random{21};
  for (const isa path : paths())
    for (const shape& s : shapes())
      for (const std::int64_t rows : {1, 17, 64, 131}) {
        paged cache{s, 20, random()};
        matrix qkv = make_qkv(random, s, rows);
        const auto blocks = cache.table(rows);
        team t{2, {.path = path}};
        const matrix out =
            cache.run(t, qkv, {{.row_begin = 0, .rows = rows, .blocks = blocks}}, dtype::f32);
        INFO(to_string(path) << " dim " << s.dim << " rows " << rows);
        CHECK(worst_error(out, cache.truth(qkv), 1.0) < (s.type == dtype::f32 ? 4e-6 : 1e-2));
      }
}

TEST_CASE("rows of attention have the same bits alone, chunked, batched and in other blocks") {
  splitmix64 random{22};
  for (const isa path : paths())
    for (const shape& s : shapes()) {
      constexpr std::int64_t rows = 150;
      matrix qkv = make_qkv(random, s, rows);
      paged whole_cache{s, 20, 1};
      const auto whole_blocks = whole_cache.table(rows);
      team alone{1, {.path = path}};
      const matrix whole = whole_cache.run(
          alone, qkv, {{.row_begin = 0, .rows = rows, .blocks = whole_blocks}}, s.type);
      // Another sequence of the batch, other blocks, chunks of random sizes, single rows among
      // them.
      shape other = s;
      other.block_size = s.block_size * 2;
      paged cache{random.below(2) == 0 ? s : other, 40, 2};
      const auto blocks = cache.table(rows);
      const auto neighbour_blocks = cache.table(rows + 40);
      team t{static_cast<unsigned>(2 + random.below(3)), {.path = path}};
      std::int64_t done = 0;
      std::int64_t neighbour_done = 0;
      while (done < rows) {
        const auto chunk = std::min<std::int64_t>(
            random.below(2) == 0 ? 1 : std::int64_t(1 + random.below(45)), rows - done);
        const std::int64_t extra = neighbour_done < rows ? 1 : 0;
        matrix batch = make_qkv(random, s, chunk + extra);
        for (std::int64_t i = 0; i < chunk; ++i)
          for (std::int64_t c = 0; c < batch.cols; ++c)
            batch.set(extra + i, c, qkv.get(done + i, c));
        std::vector<sequence_rows> sequences{
            {.row_begin = extra, .rows = chunk, .first_position = done, .blocks = blocks}};
        if (extra != 0)
          sequences.insert(sequences.begin(), {.row_begin = 0,
                                               .rows = 1,
                                               .first_position = neighbour_done,
                                               .blocks = neighbour_blocks});
        const matrix out = cache.run(t, batch, sequences, s.type);
        INFO(to_string(path) << " dim " << s.dim << " at " << done << " chunk " << chunk);
        CHECK(out.same_bits(whole, extra, done, chunk));
        done += chunk;
        neighbour_done += extra;
      }
    }
}

TEST_CASE("a NaN reaches the rows after it and none before") {
  splitmix64 random{23};
  const shape s{};
  for (const isa path : paths()) {
    matrix qkv = make_qkv(random, s, 90);
    // In the key of KV head 0, which query heads 0 and 1 share.
    qkv.set(70, std::int64_t{s.heads} * s.dim, std::numeric_limits<float>::quiet_NaN());
    paged cache{s, 12, 3};
    const auto blocks = cache.table(90);
    team t{1, {.path = path}};
    const matrix out =
        cache.run(t, qkv, {{.row_begin = 0, .rows = 90, .blocks = blocks}}, dtype::f32);
    for (std::int64_t row = 0; row < 90; ++row) {
      CHECK(std::isnan(out.get(row, 0)) == (row >= 70));
      CHECK(std::isfinite(out.get(row, 3 * s.dim)));
    }
  }
}

TEST_CASE("an empty batch and a sequence without rows do nothing") {
  splitmix64 random{24};
  const shape s{};
  paged cache{s, 12, 4};
  matrix qkv = make_qkv(random, s, 1);
  team t{2};
  const auto blocks = cache.table(1);
  (void)cache.run(t, qkv, {}, dtype::f32);
  const matrix out = cache.run(
      t, qkv, {{.row_begin = 1, .rows = 0, .blocks = blocks}, {.rows = 1, .blocks = blocks}},
      dtype::f32);
  // One position attends to itself alone: the output is v.
  for (std::int64_t d = 0; d < s.dim; ++d)
    CHECK(out.get(0, d) ==
          from_bf16(to_bf16(qkv.get(0, std::int64_t{s.heads + s.kv_heads} * s.dim + d))));
}

TEST_CASE("a batch that does not fit its cache is refused") {
  std::vector<float> memory(4096);
  const std::vector<block_id> blocks{block_id{1}, block_id{0}};
  const std::vector<sequence_rows> sequences{
      {.row_begin = 0, .rows = 2, .first_position = 20, .blocks = blocks}};
  const rope_store_args good{.qkv = memory.data(),
                             .qkv_stride = 32,
                             .heads = 2,
                             .cache = {.k = memory.data(),
                                       .v = memory.data(),
                                       .type = dtype::f32,
                                       .blocks = 2,
                                       .kv_heads = 1,
                                       .dim = 8},
                             .sequences = sequences,
                             .cos = memory.data(),
                             .sin = memory.data(),
                             .table_positions = 22,
                             .rotary_dim = 8,
                             .q = memory.data(),
                             .q_stride = 16};
  CHECK(check(good));
  const auto refused = [&](auto change) {
    rope_store_args args = good;
    change(args);
    const auto checked = check(args);
    return checked ? errc::none : checked.error().code;
  };
  using args = rope_store_args;
  CHECK(refused([](args& x) { x.cache.block_size = 8; }) == errc::unsupported);
  CHECK(refused([](args& x) { x.cache.type = dtype::f16; }) == errc::unsupported);
  CHECK(refused([](args& x) { x.cache.dim = 7; }) == errc::unsupported);
  CHECK(refused([](args& x) { x.cache.dim = 514; }) == errc::unsupported);
  CHECK(refused([](args& x) { x.heads = 0; }) == errc::bad_shape);
  CHECK(refused([](args& x) { x.cache.kv_heads = 3; }) == errc::bad_shape);
  CHECK(refused([](args& x) { x.cache.blocks = 1; }) == errc::bad_shape);
  CHECK(refused([](args& x) { x.cache.k = nullptr; }) == errc::bad_shape);
  CHECK(refused([](args& x) { x.table_positions = 21; }) == errc::bad_shape);
  CHECK(refused([](args& x) { x.rotary_dim = 10; }) == errc::bad_shape);
  CHECK(refused([](args& x) { x.cos = nullptr; }) == errc::bad_shape);
  CHECK(refused([](args& x) { x.qkv_stride = 31; }) == errc::bad_shape);
  const std::vector<sequence_rows> long_one{
      {.row_begin = 0, .rows = 2, .first_position = 31, .blocks = blocks}};
  CHECK(refused([&](args& x) {
          x.sequences = long_one;
          x.table_positions = 100;
        }) == errc::bad_shape);
  attention_args attend{.q = memory.data(),
                        .q_stride = 16,
                        .heads = 2,
                        .cache = good.cache,
                        .sequences = sequences,
                        .scale = 1,
                        .out = memory.data(),
                        .out_stride = 16};
  CHECK(check(attend));
  attend.out_stride = 15;
  CHECK(check(attend).error().code == errc::bad_shape);
  attend.out_stride = 16;
  attend.out_type = dtype::f16;
  CHECK(check(attend).error().code == errc::unsupported);
}
