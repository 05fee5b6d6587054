#pragma once

#include "kernels/cuda/testing.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

/// What tests of attention over the paged cache share: batches, items as the executor makes them,
/// and what rope takes.
namespace troupe::kernels::cuda::testing {

using cpu::testing::matrix;
using cpu::testing::random_values;

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
  std::int32_t prefill_rows = cuda::prefill_tile_rows;
  /// What makes q of the rows first, in the same kernel, and how many warps share an item there.
  const cuda::rope_store_args* turn = nullptr;
  int team = 1;
  /// Whether sequences are said to have blocks in common.
  bool shared = false;
  /// q of prompts, where they are turned in attention.
  cuda::raw_queries raw;
  /// What is enqueued in front.
  std::function<void()> in_front = [] {};

  /// @param length  positions of a split
  items(const paged_batch& b, bool prompts, bool splits,
        std::int32_t tile_rows = cuda::prefill_tile_rows,
        std::int32_t length = cuda::split_positions)
      : prefill_rows{tile_rows} {
    const std::int32_t group = b.heads / b.kv_heads;
    for (std::int32_t s = 0; s < static_cast<std::int32_t>(b.members.size()); ++s) {
      const auto& m = b.members[static_cast<std::size_t>(s)];
      const auto& of = b.sequences[static_cast<std::size_t>(s)];
      const std::int32_t rows = m.rows * group;
      if (prompts && rows > 16) {
        for (std::int32_t at = 0; at < rows; at += tile_rows)
          prefill.push_back({.tile_begin = at, .of = of});
        continue;
      }
      for (std::int32_t at = 0; at < rows; at += cuda::decode_tile_rows) {
        // A tile has the splits that its last row sees.
        const std::int32_t last =
            m.past + (std::min(at + cuda::decode_tile_rows, rows) - 1) / group;
        const std::int32_t count = last / length + 1;
        if (!splits || count == 1) {
          decode.push_back({.tile_begin = at, .of = of});
          continue;
        }
        cuda::attention_item item{.tile_begin = at,
                                  .split = count,
                                  .split_length = length,
                                  .partial = partials,
                                  .of = of};
        join.push_back(item);
        for (item.split = 0; item.split < count; ++item.split, ++item.partial)
          decode.push_back(item);
        partials = item.partial;
      }
    }
  }
};

inline cuda::kv_cache cache_of(const paged_batch& b, const mirror& k, const mirror& v) {
  return {.k = k.as<void>(),
          .v = v.as<void>(),
          .type = b.type,
          .blocks = b.blocks,
          .block_size = b.block_size,
          .kv_heads = b.kv_heads,
          .dim = b.dim};
}

/// Attention of one batch, as often as wanted.
class attention_run {
public:
  attention_run(const paged_batch& b, const mirror& q, const mirror& k, const mirror& v,
                const items& by)
      : by_{by}, type_{b.type}, rows_{static_cast<std::int64_t>(b.batch.size())},
        width_{std::int64_t{b.heads} * b.dim}, out_{static_cast<std::size_t>(rows_ * (width_ + 8)) *
                                                    size_of(b.type)},
        batch_{b.batch}, sequences_{b.sequences}, tables_{b.tables}, prefill_{by.prefill},
        decode_{by.decode}, join_{by.join}, counts_{std::vector<std::int32_t>{
                                                static_cast<std::int32_t>(by.decode.size()),
                                                static_cast<std::int32_t>(by.join.size()), 0,
                                                by.shared ? 1 : 0}},
        partials_{static_cast<std::size_t>(by.partials + 1) *
                  static_cast<std::size_t>(b.kv_heads * cuda::partial_floats(b.dim)) * 4},
        args_{.q = by.turn == nullptr ? q.as<void>() : nullptr,
              .q_stride = width_ + 8,
              .heads = b.heads,
              .cache = cache_of(b, k, v),
              .rows = rows_,
              .batch = batch_.as<cuda::batch_row>(),
              .sequences = sequences_.as<cuda::sequence_rows>(),
              .block_tables = tables_.as<std::int32_t>(),
              .prefill = prefill_.as<cuda::attention_item>(),
              .prefill_items = static_cast<std::int64_t>(by.prefill.size()),
              .prefill_rows = by.prefill_rows,
              .decode = decode_.as<cuda::attention_item>(),
              .decode_count = counts_.as<std::int32_t>(),
              .join = join_.as<cuda::attention_item>(),
              .join_count = counts_.as<std::int32_t>() + 1,
              .decode_items_max = static_cast<std::int64_t>(by.decode.size()),
              .join_items_max = static_cast<std::int64_t>(by.join.size()),
              .partials = partials_.as<float>(),
              .shared = counts_.as<std::int32_t>() + 3,
              .taken = counts_.as<std::int32_t>() + 2,
              .raw = by.raw,
              .scale = 1.0F / std::sqrt(static_cast<float>(b.dim)),
              .out = out_.as<void>(),
              .out_stride = width_ + 8} {}

  matrix go() {
    launch();
    matrix out{type_, rows_, width_, width_ + 8};
    out_.fetch(out.bytes.data());
    std::vector<std::int32_t> counts(4);
    counts_.fetch(counts.data());
    CHECK(counts[2] == 0);
    // Nothing is written between the rows.
    const auto bytes_of = [&](std::int64_t elements) {
      return static_cast<std::ptrdiff_t>(elements) * static_cast<std::ptrdiff_t>(size_of(type_));
    };
    for (std::int64_t row = 0; row < rows_; ++row) {
      const auto behind = out.bytes.begin() + bytes_of(row * out.stride + width_);
      CHECK(std::all_of(behind, behind + bytes_of(8),
                        [](std::byte x) { return x == std::byte{0xFF}; }));
    }
    return out;
  }

  /// How many of so many launches bring other bits than the first.
  int others(int launches) {
    return count_others(out_, launches, [&] { launch(); });
  }

private:
  /// Starts from NaN, where anything is to be written.
  void launch() {
    out_.poison();
    partials_.poison();
    by_.in_front();
    fine(by_.turn == nullptr ? cuda::attention(args_, nullptr)
                             : cuda::turned_attention(args_, *by_.turn, by_.team, nullptr));
  }

  items by_;
  dtype type_;
  std::int64_t rows_, width_;
  mirror out_, batch_, sequences_, tables_, prefill_, decode_, join_, counts_, partials_;
  cuda::attention_args args_;
};

inline matrix attend(const paged_batch& b, const mirror& q, const mirror& k, const mirror& v,
                     const items& by) {
  return attention_run{b, q, k, v, by}.go();
}

/// Random qkv of a batch with all that rope takes, and a cache: what rope_store() and attention()
/// make of them is what kernels that do both are held to.
struct rope_inputs {
  const paged_batch& b;
  bool norms;
  std::int64_t rows = static_cast<std::int64_t>(b.batch.size());
  std::int64_t width = std::int64_t{b.heads} * b.dim;
  std::int64_t all = width + 2 * std::int64_t{b.kv_heads} * b.dim;
  matrix qkv{b.type, rows, all, all + 8};
  /// NaN, to be written.
  matrix q{b.type, rows, width, width + 8};
  matrix k{b.type, 1, b.cache_elements(), b.cache_elements()};
  matrix v = k;
  mirror dx, batch{b.batch}, q_norm, k_norm, cos, sin;

  rope_inputs(const paged_batch& of, bool with_norms, splitmix64& random)
      : b{of}, norms{with_norms}, dx{filled(qkv, random)}, q_norm{random_values(random, b.dim, 1)},
        k_norm{random_values(random, b.dim, 1)}, cos{random_values(random, positions * b.dim / 2,
                                                                   1)},
        sin{random_values(random, positions * b.dim / 2, 1)} {
    std::fill(q.bytes.begin(), q.bytes.end(), std::byte{0xFF});
    k.fill(random, 1);
    v.fill(random, 1);
  }

  cuda::rope_store_args args(const mirror& to_q, const mirror& to_k, const mirror& to_v) const {
    return {.qkv = dx.as<void>(),
            .qkv_stride = all + 8,
            .heads = b.heads,
            .cache = cache_of(b, to_k, to_v),
            .batch = batch.as<cuda::batch_row>(),
            .rows = rows,
            .q_norm = norms ? q_norm.as<float>() : nullptr,
            .k_norm = norms ? k_norm.as<float>() : nullptr,
            .eps = 1e-6F,
            .cos = cos.as<float>(),
            .sin = sin.as<float>(),
            .q = to_q.as<void>(),
            .q_stride = width + 8};
  }

private:
  static constexpr std::int64_t positions = 4401;
  static matrix& filled(matrix& x, splitmix64& random) {
    x.fill(random, 1);
    return x;
  }
};

} // namespace troupe::kernels::cuda::testing
