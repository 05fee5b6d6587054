#pragma once

#include "kernels/cpu/kernel_table.hpp"

/// The inner kernels, written once over a vector type. Included only by the file of each
/// instruction-set path, after its vector type; everything is a template on that type, which lives
/// in the file's anonymous namespace, so no code made here is shared between paths. No standard
/// header with inline functions may be included, for the reason given in kernel_table.hpp.
///
/// A vector type V has `lanes` f32 (16 or 8; a whole divisor of 16), the types reg, breg and areg
/// and the operations used below. A "unit" is 32 bits: one f32, or a pair of bf16 adjacent in k.
namespace troupe::kernels::cpu::simd {

using index = std::int64_t;
using word = std::uint32_t;

/// The f32 number format: one element of k per unit.
template <class V>
struct f32_format {
  using vector = V;
  using element = float;
  using b_reg = typename V::reg;
  using a_reg = typename V::reg;
  static constexpr index per_unit = 1;
  static b_reg load_b(const void* p) { return V::load(static_cast<const float*>(p)); }
  static a_reg load_a(const void* p) { return V::broadcast(static_cast<const float*>(p)); }
  static typename V::reg dot(typename V::reg c, a_reg a, b_reg b) { return V::fma(a, b, c); }
  static void store(float* p, typename V::reg x) { V::store(p, x); }
};

/// The bf16 number format: pairs of k per unit.
template <class V>
struct bf16_format {
  using vector = V;
  using element = std::uint16_t;
  using b_reg = typename V::b_pairs;
  using a_reg = typename V::a_pair;
  static constexpr index per_unit = 2;
  static b_reg load_b(const void* p) { return V::load_pairs(p); }
  static a_reg load_a(const void* p) { return V::broadcast_pair(p); }
  static typename V::reg dot(typename V::reg c, a_reg a, b_reg b) { return V::dot_pairs(c, a, b); }
  static void store(std::uint16_t* p, typename V::reg x) { V::store_bf16(p, x); }
};

#define TROUPE_INLINE inline __attribute__((always_inline))

/// How far ahead weights are asked for when few rows make them stream from memory: 4 KiB.
inline constexpr index prefetch_units = 1024;

/// MR x NR vectors of sums: acc[m][n] += sum over `steps` units of a[m] times b[n].
/// The one place where the order of summation is written: k ascending, one accumulator.
template <class F, int MR, int NR>
struct accumulators {
  using V = typename F::vector;
  typename V::reg c[MR][NR];

  TROUPE_INLINE void clear() {
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 8
      for (int n = 0; n < NR; ++n)
        c[m][n] = V::zero();
    }
  }

  /// Begins with what is at `from`, each row times its factor.
  TROUPE_INLINE void load(const float* from, index stride, const float* factors) {
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
      const auto factor = V::set(factors[m]);
#pragma GCC unroll 8
      for (int n = 0; n < NR; ++n)
        c[m][n] = V::mul(V::load(from + m * stride + n * V::lanes), factor);
    }
  }

  /// Adds the sums of earlier k, stored without gaps.
  TROUPE_INLINE void join(const float* earlier) {
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 8
      for (int n = 0; n < NR; ++n)
        c[m][n] = V::add(V::load(earlier + (m * NR + n) * V::lanes), c[m][n]);
    }
  }

  TROUPE_INLINE void store(float* to, index stride) const {
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 8
      for (int n = 0; n < NR; ++n)
        V::store(to + m * stride + n * V::lanes, c[m][n]);
    }
  }

  /// `lda` and `step` in units; b[n] are advanced by `step` at each unit of k.
  TROUPE_INLINE void add(const word* a, index lda, const word* const* b, index step, index steps) {
    const word* column[NR];
#pragma GCC unroll 8
    for (int n = 0; n < NR; ++n)
      column[n] = b[n];
    for (index k = 0; k < steps; ++k) {
      typename F::b_reg right[NR];
#pragma GCC unroll 8
      for (int n = 0; n < NR; ++n) {
        right[n] = F::load_b(column[n] + k * step);
        if constexpr (MR <= 8)
          V::prefetch(column[n] + k * step + prefetch_units);
      }
#pragma GCC unroll 16
      for (int m = 0; m < MR; ++m) {
        const typename F::a_reg left = F::load_a(a + m * lda + k);
#pragma GCC unroll 8
        for (int n = 0; n < NR; ++n)
          c[m][n] = F::dot(c[m][n], left, right[n]);
      }
    }
  }
};

/// Rows of a that one call of the innermost product takes beside NR vectors of b.
template <class F, int NR>
constexpr int max_rows() {
  constexpr int registers = F::per_unit == 2 ? F::vector::bf16_registers : F::vector::f32_registers;
  return registers / (NR < 2 ? 2 : NR);
}

/// One register tile of a product: MR rows, NR vectors that begin at vector `first` of the panels.
template <class F, int MR, int NR>
void product_tile(const tile_args& t, index row, int first) {
  using V = typename F::vector;
  constexpr int per_panel = 32 / V::lanes;
  const index lda = t.lda; // Elements, which need not be whole units.
  const word* b[NR];
  for (int n = 0; n < NR; ++n) {
    const int vector = first + n;
    const auto* panel = static_cast<const word*>(t.b) +
                        static_cast<index>(vector / per_panel) * (t.panel_size / F::per_unit);
    b[n] = panel + static_cast<index>(vector % per_panel) * V::lanes;
  }
  const auto* a =
      reinterpret_cast<const word*>(static_cast<const typename F::element*>(t.a) + row * lda);
  const index units = t.k / F::per_unit / t.segments;
  accumulators<F, MR, NR> sums;
  float finished[3][MR * NR * V::lanes];
  int depth = 0;
  int segment = 0;
  do { // At least one segment, which the compiler should know.
    sums.clear();
    sums.add(a + segment * units, lda / F::per_unit, b, 32, units);
    for (int n = 0; n < NR; ++n)
      b[n] += units * 32;
    // Two finished subtrees of equal size are joined at once: one for each trailing 1 of segment.
    for (int bits = segment; (bits & 1) != 0; bits >>= 1)
      sums.join(finished[--depth]);
    if (segment + 1 < t.segments)
      sums.store(finished[depth++], NR * V::lanes);
  } while (++segment < t.segments);
  sums.store(t.c + row * t.ldc + static_cast<index>(first) * V::lanes, t.ldc);
}

/// Calls product_tile with `rows` made a constant.
template <class F, int NR, int MR>
TROUPE_INLINE void product_rows(const tile_args& t, index row, int first, int rows) {
  if (rows == MR)
    return product_tile<F, MR, NR>(t, row, first);
  if constexpr (MR > 1)
    product_rows<F, NR, MR - 1>(t, row, first, rows);
}

template <class F, int NR>
void product_columns(const tile_args& t, int first) {
  constexpr int most = max_rows<F, NR>();
  const int tiles = (t.rows + most - 1) / most;
  index row = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    // Even tiles: 16 rows are 8 + 8, not 14 + 2.
    const int rows = (t.rows - static_cast<int>(row) + tiles - tile - 1) / (tiles - tile);
    product_rows<F, NR, most>(t, row, first, rows);
    row += rows;
  }
}

/// A product over one to several panels. With few rows, several vectors at once keep enough sums in
/// flight to hide the latency of the multiplier; the order within a sum is always the same.
template <class F>
void product(const tile_args& t) {
  constexpr int per_panel = 32 / F::vector::lanes;
  const int vectors = per_panel * t.panels;
  constexpr int wide = 8;
  int first = 0;
  if constexpr (max_rows<F, wide>() >= 1) {
    if (t.rows <= max_rows<F, wide>())
      for (; vectors - first >= wide; first += wide)
        product_columns<F, wide>(t, first);
  }
  if constexpr (max_rows<F, 4>() >= 1) {
    if (t.rows <= max_rows<F, 4>())
      for (; vectors - first >= 4; first += 4)
        product_columns<F, 4>(t, first);
  }
  for (; first < vectors; first += 2)
    product_columns<F, 2>(t, first);
}

// -- attention ---------------------------------------------------------------------------------

inline constexpr int tile_positions = 64;
inline constexpr int slab = 16;

/// Scores of MR queries with NR vectors of positions, beginning at vector `first` of the tile.
template <class F, int MR, int NR>
void score_tile(const score_args& s, index row, int first) {
  using V = typename F::vector;
  constexpr int per_slab = slab / V::lanes;
  const word* b[NR];
  for (int n = 0; n < NR; ++n)
    b[n] = static_cast<const word*>(s.slabs[(first + n) / per_slab]) +
           static_cast<index>((first + n) % per_slab) * V::lanes;
  const auto* q =
      reinterpret_cast<const word*>(static_cast<const typename F::element*>(s.q) + row * s.dim);
  accumulators<F, MR, NR> sums;
  sums.clear();
  sums.add(q, s.dim / F::per_unit, b, slab, s.dim / F::per_unit);
  sums.store(s.scores + row * tile_positions + static_cast<index>(first) * V::lanes,
             tile_positions);
}

template <class F, int NR, int MR>
TROUPE_INLINE void score_rows(const score_args& s, index row, int first, int rows) {
  if (rows == MR)
    return score_tile<F, MR, NR>(s, row, first);
  if constexpr (MR > 1)
    score_rows<F, NR, MR - 1>(s, row, first, rows);
}

template <class F>
void score(const score_args& s) {
  constexpr int per_slab = slab / F::vector::lanes;
  const int vectors = per_slab * s.slab_count;
  int first = 0;
  if constexpr (max_rows<F, 4>() >= 1) {
    if (s.rows <= 3 && s.rows <= max_rows<F, 4>())
      for (; vectors - first >= 4; first += 4)
        score_rows<F, 4, (max_rows<F, 4>() < 3 ? max_rows<F, 4>() : 3)>(s, 0, first, s.rows);
  }
  constexpr int most = max_rows<F, 2>();
  for (; first < vectors; first += 2) {
    // An odd last slab is computed with itself as its neighbour: the caller repeats it in `slabs`.
    for (index row = 0; row < s.rows; row += most) {
      const index left = s.rows - row;
      score_rows<F, 2, most>(s, row, first, static_cast<int>(left < most ? left : most));
    }
  }
}

/// 2^x, relative error below 2e-7; 2^0 is exactly 1, and -infinity gives 0. A NaN stays a NaN.
template <class V>
TROUPE_INLINE typename V::reg exp2(typename V::reg x) {
  using reg = typename V::reg;
  // The operand order makes min and max hand on a NaN.
  x = V::min(V::set(127.0F), V::max(V::set(-127.0F), x));
  const reg whole = V::round(x);
  const reg f = V::sub(x, whole);
  // Taylor coefficients of 2^f: ln(2)^i / i!, on [-1/2, 1/2].
  reg p = V::set(1.52527338e-5F);
  p = V::fma(p, f, V::set(1.54035304e-4F));
  p = V::fma(p, f, V::set(1.33335581e-3F));
  p = V::fma(p, f, V::set(9.61812911e-3F));
  p = V::fma(p, f, V::set(5.55041087e-2F));
  p = V::fma(p, f, V::set(2.40226507e-1F));
  p = V::fma(p, f, V::set(6.93147181e-1F));
  p = V::fma(p, f, V::set(1.0F));
  return V::scale_by_power(p, whole);
}

template <class F>
void softmax(const softmax_args& s) {
  using V = typename F::vector;
  using reg = typename V::reg;
  constexpr int vectors = tile_positions / V::lanes;
  for (int row = 0; row < s.rows; ++row) {
    const float* raw = s.scores + row * tile_positions;
    reg x[vectors];
    reg most = V::set(-__builtin_inff());
    for (int n = 0; n < vectors; ++n) {
      x[n] = V::mul(V::load(raw + n * V::lanes), V::set(s.scale_log2));
      x[n] = V::keep_first(x[n], s.valid[row] - n * V::lanes);
      most = V::max(most, x[n]);
    }
    const float old_max = s.row_max[row];
    const float tile_max = V::reduce_max(most);
    const float new_max = tile_max > old_max ? tile_max : old_max;
    const reg base = V::set(new_max);
    reg sum = V::zero();
    auto* p = static_cast<typename F::element*>(s.p) + row * tile_positions;
    for (int n = 0; n < vectors; ++n) {
      const reg e = exp2<V>(V::sub(x[n], base));
      sum = V::add(sum, e);
      F::store(p + n * V::lanes, e);
    }
    const float rescale = V::first(exp2<V>(V::set(old_max - new_max)));
    s.row_max[row] = new_max;
    s.rescale[row] = rescale;
    s.row_sum[row] = s.row_sum[row] * rescale + V::reduce_add(sum);
  }
}

template <class F, int MR, int NR>
void value_tile(const value_args& v, index row, index column) {
  using V = typename F::vector;
  constexpr index units = slab / F::per_unit;
  constexpr index p_stride = tile_positions / F::per_unit;
  accumulators<F, MR, NR> sums;
  float* acc = v.acc + row * v.dim + column;
  sums.load(acc, v.dim, v.rescale + row);
  const auto* p = static_cast<const word*>(v.p) + row * p_stride;
  for (int i = 0; i < v.slab_count; ++i) {
    const word* b[NR];
    for (int n = 0; n < NR; ++n)
      b[n] = static_cast<const word*>(v.slabs[i]) + column + n * V::lanes;
    sums.add(p + i * units, p_stride, b, v.dim, units);
  }
  sums.store(acc, v.dim);
}

template <class F, int NR, int MR>
TROUPE_INLINE void value_rows(const value_args& v, index row, index column, int rows) {
  if (rows == MR)
    return value_tile<F, MR, NR>(v, row, column);
  if constexpr (MR > 1)
    value_rows<F, NR, MR - 1>(v, row, column, rows);
}

template <class F, int NR>
void value_columns(const value_args& v, index column) {
  constexpr int most = max_rows<F, NR>();
  for (index row = 0; row < v.rows; row += most) {
    const index left = v.rows - row;
    value_rows<F, NR, most>(v, row, column, static_cast<int>(left < most ? left : most));
  }
}

template <class F>
void value(const value_args& v) {
  constexpr index lanes = F::vector::lanes;
  index column = 0;
  if constexpr (max_rows<F, 4>() >= 1) {
    if (v.rows <= max_rows<F, 4>())
      for (; v.dim - column >= 4 * lanes; column += 4 * lanes)
        value_columns<F, 4>(v, column);
  }
  for (; v.dim - column >= 2 * lanes; column += 2 * lanes)
    value_columns<F, 2>(v, column);
  for (; column < v.dim; column += lanes)
    value_columns<F, 1>(v, column);
}

// -- rows --------------------------------------------------------------------------------------

/// Sum of squares in four interleaved vectors, joined in a fixed order; the tail is summed alone.
template <class V>
float sum_squares(const float* x, index n) {
  typename V::reg sum[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
  index i = 0;
  for (; i + 4 * V::lanes <= n; i += 4 * V::lanes)
    for (int j = 0; j < 4; ++j) {
      const auto v = V::load(x + i + j * V::lanes);
      sum[j] = V::fma(v, v, sum[j]);
    }
  float total = V::reduce_add(V::add(V::add(sum[0], sum[1]), V::add(sum[2], sum[3])));
  float tail = 0;
  for (; i < n; ++i)
    tail += x[i] * x[i];
  return total + tail;
}

/// x += y.
template <class V>
void add_row(float* x, const float* y, index n) {
  index i = 0;
  for (; i + V::lanes <= n; i += V::lanes)
    V::store(x + i, V::add(V::load(x + i), V::load(y + i)));
  for (; i < n; ++i)
    x[i] += y[i];
}

/// Calls f(x, y, out) over vectors of [0, n): whole vectors in place, then the
/// tail through a padded copy, so that an element's value does not depend on n.
template <class V, class Element, class Function>
TROUPE_INLINE void map_rows(const float* x, const float* y, Element* out, index n, Function f) {
  index i = 0;
  for (; i + V::lanes <= n; i += V::lanes)
    f(V::load(x + i), V::load(y + i), out + i);
  if (i == n)
    return;
  float tail_x[V::lanes] = {};
  float tail_y[V::lanes] = {};
  Element tail_out[V::lanes];
  for (index j = i; j < n; ++j) {
    tail_x[j - i] = x[j];
    tail_y[j - i] = y[j];
  }
  f(V::load(tail_x), V::load(tail_y), tail_out);
  for (index j = i; j < n; ++j)
    out[j] = tail_out[j - i];
}

template <class F>
void scale_row(const float* x, const float* weight, float scale, typename F::element* out,
               index n) {
  using V = typename F::vector;
  map_rows<V>(x, weight, out, n, [scale](auto v, auto w, typename F::element* p) {
    F::store(p, V::mul(V::mul(v, V::set(scale)), w));
  });
}

/// out = x * scale. Adding zero turns -0 into 0: whether a sum that vanishes has a sign would
/// otherwise tell how many masked positions were added to it.
template <class F>
void write_row(const float* x, float scale, typename F::element* out, index n) {
  using V = typename F::vector;
  map_rows<V>(x, x, out, n, [scale](auto v, auto, typename F::element* p) {
    F::store(p, V::add(V::mul(v, V::set(scale)), V::zero()));
  });
}

/// (a, b) = (a cos - b sin, b cos + a sin) for the two halves of a head, in place.
template <class V>
void rotate(float* head, const float* cos, const float* sin, index half) {
  index i = 0;
  for (; i + V::lanes <= half; i += V::lanes) {
    const auto a = V::load(head + i);
    const auto b = V::load(head + half + i);
    const auto c = V::load(cos + i);
    const auto s = V::load(sin + i);
    V::store(head + i, V::sub(V::mul(a, c), V::mul(b, s)));
    V::store(head + half + i, V::add(V::mul(b, c), V::mul(a, s)));
  }
  for (; i < half; ++i) {
    const float a = head[i];
    const float b = head[half + i];
    head[i] = a * cos[i] - b * sin[i];
    head[half + i] = b * cos[i] + a * sin[i];
  }
}

/// silu(x) * y = x y / (1 + exp(-x)).
template <class F>
void silu_row(const float* gate, const float* up, typename F::element* out, index n) {
  using V = typename F::vector;
  map_rows<V>(gate, up, out, n, [](auto g, auto u, typename F::element* p) {
    const auto e = exp2<V>(V::mul(g, V::set(-1.44269504F)));
    F::store(p, V::mul(V::div(g, V::add(V::set(1.0F), e)), u));
  });
}

/// The table of the path whose vector type is V.
template <class V>
constexpr kernel_table make_table() {
  return {
      .row_tile = V::row_tile,
      .panels_at_once = {1, V::panels_at_1, V::panels_at_2, V::panels_at_3, 1},
      .tile_bf16 = product<bf16_format<V>>,
      .tile_f32 = product<f32_format<V>>,
      .score_bf16 = score<bf16_format<V>>,
      .score_f32 = score<f32_format<V>>,
      .softmax_bf16 = softmax<bf16_format<V>>,
      .softmax_f32 = softmax<f32_format<V>>,
      .value_bf16 = value<bf16_format<V>>,
      .value_f32 = value<f32_format<V>>,
      .sum_squares = sum_squares<V>,
      .add = add_row<V>,
      .scale_f32 = scale_row<f32_format<V>>,
      .scale_bf16 = scale_row<bf16_format<V>>,
      .write_f32 = write_row<f32_format<V>>,
      .write_bf16 = write_row<bf16_format<V>>,
      .rotate = rotate<V>,
      .silu_f32 = silu_row<f32_format<V>>,
      .silu_bf16 = silu_row<bf16_format<V>>,
  };
}

} // namespace troupe::kernels::cpu::simd
