#include "kernels/cpu/kernel_table.hpp"
#include "kernels/cpu/ops.hpp"

#include <fmt/core.h>

#include <algorithm>

// Products. A packed panel of 32 outputs is multiplied with a tile of rows that fits the registers,
// over all of K at once; a panel of the weights stays in the L2 cache while the row tiles pass by.
// Roofline: few rows are bound by reading the weights once, many by the multipliers.
namespace troupe::kernels::cpu {

namespace {

/// A product of some rows with some adjacent panels.
struct block {
  std::int64_t row = 0;
  std::int64_t rows = 0;
  std::int64_t panel = 0;
  std::int64_t panels = 0;
};

struct operands {
  const kernel_table* kernels;
  const void* a;
  std::int64_t lda;
  const packed_matrix* w;
  std::int32_t segments;
};

/// Weights of this size stream from memory, fastest as one sequence of addresses; smaller ones are
/// likely in a cache, where several panels at once hide the latency of the multiplier.
constexpr std::size_t streaming_bytes = 4U << 20U;

/// Calls visit(block) for this member's share of all (panel, row tile) pairs, panel by panel. The
/// row tiles depend on `rows` alone; neither they nor the shares change a single bit of a result.
template <class Visit>
void for_each_block(member& m, std::int64_t rows, const packed_matrix& w, Visit visit) {
  if (rows == 0)
    return;
  const kernel_table& kernels = m.kernels();
  const std::int64_t panels = w.panels();
  const std::int64_t tiles = (rows + kernels.row_tile - 1) / kernels.row_tile;
  if (tiles == 1) {
    const std::int64_t together =
        w.bytes() >= streaming_bytes ? 1 : kernels.panels_at_once[std::min<std::int64_t>(rows, 4)];
    const share mine = m.split(panels);
    for (std::int64_t p = mine.begin; p < mine.end; p += together)
      visit(block{0, rows, p, std::min(together, mine.end - p)});
    return;
  }
  const share mine = m.split(panels * tiles);
  for (std::int64_t item = mine.begin; item < mine.end; ++item) {
    const std::int64_t tile = item % tiles;
    const std::int64_t begin = rows * tile / tiles;
    visit(block{begin, rows * (tile + 1) / tiles - begin, item / tiles, 1});
  }
}

/// out[rows][32 panels] = the block's sums over all of K.
void multiply(const operands& o, const block& b, float* out, std::int64_t ldo) {
  const auto element = static_cast<std::int64_t>(size_of(o.w->type()));
  const tile_args tile{.a = static_cast<const std::byte*>(o.a) + b.row * o.lda * element,
                       .lda = o.lda,
                       .b = o.w->panel(b.panel),
                       .panel_size = o.w->panel_size(),
                       .k = o.w->padded_cols(),
                       .segments = o.segments,
                       .c = out,
                       .ldc = ldo,
                       .rows = static_cast<std::int32_t>(b.rows),
                       .panels = static_cast<std::int32_t>(b.panels)};
  if (o.w->type() == dtype::bf16)
    o.kernels->tile_bf16(tile);
  else
    o.kernels->tile_f32(tile);
}

void finish(const linear_args& args, const kernel_table& kernels, const block& b,
            const float* sums) {
  const std::int64_t column = b.panel * panel_width;
  const std::int64_t width = b.panels * panel_width;
  const std::int64_t used = std::min(width, args.w->rows() - column);
  for (std::int64_t m = 0; m < b.rows; ++m) {
    float* c = args.c + (b.row + m) * args.ldc + column;
    const float* sum = sums + m * width;
    float biased[4 * panel_width];
    if (args.bias != nullptr) {
      std::copy_n(sum, used, biased);
      kernels.add(biased, args.bias + column, used);
      sum = biased;
    }
    if (args.accumulate)
      kernels.add(c, sum, used);
    else
      std::copy_n(sum, used, c);
  }
}

result<void> check_operands(const packed_matrix* w, const void* a, std::int64_t lda,
                            std::int64_t rows) {
  if (w == nullptr || w->panels() == 0)
    return fail(errc::bad_shape, "the weights of a product are missing");
  if (rows < 0 || (rows > 0 && a == nullptr))
    return fail(errc::bad_shape, fmt::format("a product of {} rows without activations", rows));
  if (lda < w->padded_cols())
    return fail(errc::bad_shape, fmt::format("activations have a stride of {}, the weights {} "
                                             "columns",
                                             lda, w->padded_cols()));
  if (w->type() == dtype::bf16 && lda % 2 != 0)
    return fail(errc::bad_shape, fmt::format("bf16 activations need an even stride, not {}", lda));
  return {};
}

} // namespace

void linear(member& m, const linear_args& args) {
  const operands o{&m.kernels(), args.a, args.lda, args.w, args.k_segments};
  auto* sums = reinterpret_cast<float*>(m.scratch().data());
  const bool direct = !args.accumulate && args.bias == nullptr;
  for_each_block(m, args.rows, *args.w, [&](const block& b) {
    const std::int64_t column = b.panel * panel_width;
    if (direct && column + b.panels * panel_width <= args.w->rows()) {
      multiply(o, b, args.c + b.row * args.ldc + column, args.ldc);
      return;
    }
    multiply(o, b, sums, b.panels * panel_width);
    finish(args, *o.kernels, b, sums);
  });
}

void linear_silu_mul(member& m, const gate_up_args& args) {
  constexpr std::int64_t half = panel_width / 2;
  const operands o{&m.kernels(), args.a, args.lda, args.w, 1};
  const kernel_table& kernels = *o.kernels;
  auto* sums = reinterpret_cast<float*>(m.scratch().data());
  const std::int64_t outputs = args.w->rows() / 2;
  const auto finish_panel = [&](const block& b, std::int64_t row, std::int64_t p) {
    const float* gate = sums + row * b.panels * panel_width + p * panel_width;
    const std::int64_t column = (b.panel + p) * half;
    const std::int64_t used = std::min(half, outputs - column);
    const std::int64_t at = (b.row + row) * args.ldo + column;
    if (args.w->type() == dtype::bf16)
      kernels.silu_bf16(gate, gate + half, static_cast<std::uint16_t*>(args.out) + at, used);
    else
      kernels.silu_f32(gate, gate + half, static_cast<float*>(args.out) + at, used);
  };
  for_each_block(m, args.rows, *args.w, [&](const block& b) {
    multiply(o, b, sums, b.panels * panel_width);
    for (std::int64_t row = 0; row < b.rows; ++row)
      for (std::int64_t p = 0; p < b.panels; ++p)
        finish_panel(b, row, p);
  });
}

result<void> check(const linear_args& args) {
  if (auto checked = check_operands(args.w, args.a, args.lda, args.rows); !checked)
    return checked;
  if (args.w->layout() != pack_layout::plain)
    return fail(errc::bad_shape, "linear takes plain weights, not gate_up");
  if (args.rows > 0 && (args.c == nullptr || args.ldc < args.w->rows()))
    return fail(errc::bad_shape, fmt::format("the output has a stride of {}, the product {} "
                                             "columns",
                                             args.ldc, args.w->rows()));
  if (args.k_segments < 1 || args.k_segments > tree_segments ||
      (args.k_segments & (args.k_segments - 1)) != 0)
    return fail(errc::bad_shape,
                fmt::format("{} segments of a sum; there may be 1, 2, 4 or 8", args.k_segments));
  if (args.k_segments > 1 && args.w->cols() % (2 * args.k_segments) != 0)
    return fail(errc::bad_shape,
                fmt::format("{} columns cannot be summed in {} segments of whole pairs",
                            args.w->cols(), args.k_segments));
  return {};
}

result<void> check(const gate_up_args& args) {
  if (auto checked = check_operands(args.w, args.a, args.lda, args.rows); !checked)
    return checked;
  if (args.w->layout() != pack_layout::gate_up)
    return fail(errc::bad_shape, "linear_silu_mul takes weights packed as gate_up");
  if (args.rows > 0 && (args.out == nullptr || args.ldo < args.w->rows() / 2))
    return fail(errc::bad_shape, fmt::format("the output has a stride of {}, the product {} "
                                             "columns",
                                             args.ldo, args.w->rows() / 2));
  return {};
}

} // namespace troupe::kernels::cpu
