#include "kernels/cpu/pack.hpp"

#include "kernels/cpu/team.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <vector>

namespace troupe::kernels::cpu {

namespace {

/// Where one output's weights come from; no data means a padding output of zeros.
struct source_row {
  const tensor_view* view = nullptr;
  std::int64_t row = 0;
};

result<void> check_sources(const pack_args& args) {
  if (args.compute == dtype::f16)
    return fail(errc::unsupported, "weights are computed in bf16 or f32, not in f16");
  if (args.sources.empty())
    return fail(errc::bad_shape, "no weights to pack");
  for (const tensor_view& source : args.sources) {
    if (source.rank != 2 || source.shape[0] <= 0 || source.shape[1] <= 0)
      return fail(errc::bad_shape, fmt::format("a weight to pack has rank {} and shape {} x {}",
                                               source.rank, source.shape[0], source.shape[1]));
    if (source.shape[1] != args.sources[0].shape[1])
      return fail(errc::bad_shape, fmt::format("weights packed together have {} and {} columns",
                                               args.sources[0].shape[1], source.shape[1]));
    if (source.stride() < source.shape[1])
      return fail(errc::bad_shape, fmt::format("rows of {} elements lie {} apart", source.shape[1],
                                               source.stride()));
  }
  if (args.layout == pack_layout::gate_up &&
      (args.sources.size() != 2 || args.sources[0].shape != args.sources[1].shape))
    return fail(errc::bad_shape, "gate_up packs a gate and an up of equal shape");
  return {};
}

source_row find_row(const pack_args& args, std::int64_t panel, std::int64_t column) {
  if (args.layout == pack_layout::gate_up) {
    constexpr std::int64_t half = panel_width / 2;
    const tensor_view& view = args.sources[column < half ? 0 : 1];
    const std::int64_t row = panel * half + column % half;
    return row < view.shape[0] ? source_row{&view, row} : source_row{};
  }
  std::int64_t row = panel * panel_width + column;
  for (const tensor_view& view : args.sources) {
    if (row < view.shape[0])
      return {&view, row};
    row -= view.shape[0];
  }
  return {};
}

/// Copies one output's weights to `out`, K elements `step` apart within pairs: see packed_matrix.
void pack_bf16_row(const source_row& from, std::int64_t cols, std::uint32_t* out) {
  const auto element = [&](std::int64_t k) -> std::uint32_t {
    if (k >= cols)
      return 0;
    const std::int64_t index = from.row * from.view->stride() + k;
    if (from.view->type == dtype::bf16)
      return static_cast<const std::uint16_t*>(from.view->data)[index];
    return to_bf16(load_as_f32(from.view->data, from.view->type, index));
  };
  for (std::int64_t k = 0; k < cols; k += 2)
    out[k / 2 * panel_width] = element(k) | element(k + 1) << 16;
}

void pack_f32_row(const source_row& from, std::int64_t cols, float* out) {
  for (std::int64_t k = 0; k < cols; ++k)
    out[k * panel_width] =
        load_as_f32(from.view->data, from.view->type, from.row * from.view->stride() + k);
}

/// bf16 to bf16, the usual case, in blocks: 64 bytes of each of 32 rows become 16 whole lines.
void pack_bf16_block(const std::uint16_t* const* rows, std::int64_t begin, std::uint32_t* out) {
  constexpr std::int64_t pairs = 16;
  for (std::int64_t column = 0; column < panel_width; ++column) {
    std::uint32_t line[pairs];
    std::memcpy(line, rows[column] + begin, sizeof line);
    for (std::int64_t pair = 0; pair < pairs; ++pair)
      out[pair * panel_width + column] = line[pair];
  }
}

/// Packs the panel in blocks if all its rows are there and bf16; says how many columns it did.
std::int64_t pack_bf16_blocks(const source_row* rows, std::int64_t cols, std::uint32_t* out) {
  const std::uint16_t* data[panel_width];
  for (std::int64_t column = 0; column < panel_width; ++column) {
    const source_row& row = rows[column];
    if (row.view == nullptr || row.view->type != dtype::bf16)
      return 0;
    data[column] = static_cast<const std::uint16_t*>(row.view->data) + row.row * row.view->stride();
  }
  const std::int64_t whole = cols / 32 * 32;
  for (std::int64_t k = 0; k < whole; k += 32)
    pack_bf16_block(data, k, out + k / 2 * panel_width);
  return whole;
}

void pack_panel(const pack_args& args, std::int64_t panel, std::int64_t cols, void* out) {
  source_row rows[panel_width];
  for (std::int64_t column = 0; column < panel_width; ++column)
    rows[column] = find_row(args, panel, column);
  if (args.compute == dtype::bf16 &&
      pack_bf16_blocks(rows, cols, static_cast<std::uint32_t*>(out)) == cols)
    return;
  for (std::int64_t column = 0; column < panel_width; ++column) {
    if (rows[column].view == nullptr)
      continue; // Fresh memory is zero.
    if (args.compute == dtype::bf16)
      pack_bf16_row(rows[column], cols, static_cast<std::uint32_t*>(out) + column);
    else
      pack_f32_row(rows[column], cols, static_cast<float*>(out) + column);
  }
}

} // namespace

result<packed_matrix> pack(const pack_args& args) {
  if (auto checked = check_sources(args); !checked)
    return fail(checked.error());
  packed_matrix made;
  for (const tensor_view& source : args.sources)
    made.rows_ += source.shape[0];
  made.cols_ = args.sources[0].shape[1];
  made.padded_cols_ = args.compute == dtype::bf16 ? (made.cols_ + 1) / 2 * 2 : made.cols_;
  made.type_ = args.compute;
  made.layout_ = args.layout;
  const bool gate_up = args.layout == pack_layout::gate_up;
  const std::int64_t outputs = gate_up ? args.sources[0].shape[0] : made.rows_;
  const std::int64_t width = gate_up ? panel_width / 2 : panel_width;
  made.panels_ = (outputs + width - 1) / width;
  const auto panel_bytes = static_cast<std::size_t>(made.panel_size()) * size_of(args.compute);
  auto memory = buffer::make(static_cast<std::size_t>(made.panels_) * panel_bytes);
  if (!memory)
    return fail(memory.error());
  made.data_ = std::move(*memory);
  auto* data = made.data_.as<std::byte>();
  const auto pack_range = [&](share panels) {
    for (std::int64_t p = panels.begin; p < panels.end; ++p)
      pack_panel(args, p, made.cols_, data + static_cast<std::size_t>(p) * panel_bytes);
  };
  if (args.helpers == nullptr)
    pack_range({0, made.panels_});
  else
    args.helpers->run([&](member& m) { pack_range(m.split(made.panels_)); });
  return made;
}

} // namespace troupe::kernels::cpu
