// How a step's attention is cut into items: which sequences are split, into how long parts, and in
// which order items begin.
#include "engine/exec/cuda/step_inputs.hpp"

#include <algorithm>
#include <span>

namespace troupe::engine::cuda {

namespace {

using kernels::cuda::attention_item;
using kernels::cuda::batch_row;
using kernels::cuda::decode_tile_rows;
using kernels::cuda::split_positions;

/// What the work of a step is divided by: a warp reads no faster than an SM's share of the
/// bandwidth, so a sequence that would take a good part of the whole step must be split. All others
/// are walked whole, for partial results are written and read again.
constexpr std::int64_t multiprocessors = 132;

/// Warps of a multiprocessor that walk items in turned_attention(), alone or in teams.
constexpr std::int64_t warps = 8;

/// Splits of other lengths than split_positions have multiples of so many positions.
constexpr std::int32_t length_step = 64;

/// Into how many parts of about `wanted` positions a sequence of `end` goes. One of less than
/// split_positions costs more, as it is joined, than it spares.
std::int32_t parts_of(std::int32_t end, std::int64_t wanted, std::int32_t whole) {
  if (end <= whole)
    return 1;
  return static_cast<std::int32_t>(std::clamp<std::int64_t>(end / std::max<std::int64_t>(wanted, 1),
                                                            1, count_of(end, split_positions)));
}

} // namespace

bool host_inputs::is_prompt(const kernels::cuda::sequence_rows& rows) const noexcept {
  return rows.rows > 1 && rows.rows * limits_.group > decode_tile_rows;
}

void host_inputs::deal_decodes() {
  const auto* const sequences = at<kernels::cuda::sequence_rows>(layout_.sequences);
  order_.clear();
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(sequences_); ++i)
    if (!is_prompt(sequences[i]))
      order_.push_back(i);
  item_lists own{sequences, counts(), at<attention_item>(layout_.decode),
                 at<attention_item>(layout_.join)};
  own.teams = limits_.whole_positions > 0 && decodes_alone();
  deal(own);
  if (picked_ < rows_)
    deal_sampling();
  if (decodes_alone())
    counts()[shared_word] = shares_blocks() ? 1 : 0;
}

/// Each row that samples becomes a sequence of one row, with items of its own.
void host_inputs::deal_sampling() {
  const auto* const picks = at<std::int32_t>(layout_.pick);
  auto* const alone = at<kernels::cuda::sequence_rows>(layout_.sampling_sequences);
  order_.clear();
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(picked_); ++i) {
    batch_row row = batch()[picks[i]];
    alone[i] = at<kernels::cuda::sequence_rows>(layout_.sequences)[row.sequence];
    alone[i].row_begin = row.sequence = i;
    alone[i].rows = 1;
    alone[i].first_position = row.position;
    at<batch_row>(layout_.sampling_batch)[i] = row;
    order_.push_back(i);
  }
  deal({alone, counts() + sampling_counts, at<attention_item>(layout_.sampling_decode),
        at<attention_item>(layout_.sampling_join)});
}

std::int64_t host_inputs::wanted_length(const item_lists& to, std::int64_t share) const {
  constexpr std::int64_t all = warps * multiprocessors;
  // Of attention() two warps walk an item.
  if (!to.teams)
    return share * 2 / warps;
  for (std::int64_t team = warps; team > 1; team /= 2) {
    const std::int64_t wanted = share * team / warps;
    std::int64_t busy = 0;
    for (const std::int32_t i : order_)
      busy += tiles_of_rows(to, i) * parts_of(to.end_of(i), wanted, limits_.whole_positions);
    busy *= limits_.kv_heads * team;
    if (busy <= all && busy * 10 >= all * 7)
      return wanted;
  }
  return share / warps;
}

std::int32_t host_inputs::tiles_of_rows(const item_lists& to, std::int32_t i) const {
  return static_cast<std::int32_t>(
      count_of(to.sequences[i].rows * limits_.group, decode_tile_rows));
}

void host_inputs::deal(const item_lists& to) {
  std::int64_t positions = 0;
  for (const std::int32_t i : order_)
    positions += std::int64_t{tiles_of_rows(to, i)} * to.end_of(i);
  std::ranges::sort(order_, [&](std::int32_t a, std::int32_t b) {
    return to.end_of(a) != to.end_of(b) ? to.end_of(a) > to.end_of(b) : a < b;
  });
  const std::int64_t share = positions * limits_.kv_heads / multiprocessors;
  const bool fixed = limits_.whole_positions == 0;
  const std::int64_t wanted = fixed ? 0 : wanted_length(to, share);
  const auto length_of = [&](std::int32_t end) -> std::int64_t {
    if (fixed)
      return end <= share * 3 / 4 ? end : split_positions;
    const std::int32_t parts =
        parts_of(end, wanted, to.teams ? limits_.whole_positions : split_positions);
    return parts == 1 ? end : length_step * count_of(count_of(end, parts), length_step);
  };
  std::int32_t partials = 0;
  for (const std::int32_t sequence : order_) {
    const std::int32_t end = to.end_of(sequence);
    const std::int64_t length = length_of(end);
    const auto splits = static_cast<std::int32_t>(count_of(end, length));
    for (std::int32_t tile = 0; tile < tiles_of_rows(to, sequence); ++tile) {
      attention_item item{.tile_begin = tile * decode_tile_rows, .of = to.sequences[sequence]};
      if (splits == 1 || partials + splits > static_cast<std::int32_t>(most_partials)) {
        to.decode[to.counts[0]++] = item;
        continue;
      }
      item.split = splits;
      item.split_length = static_cast<std::int32_t>(length);
      item.partial = partials;
      to.join[to.counts[1]++] = item;
      for (item.split = 0; item.split < splits; ++item.split, ++item.partial)
        to.decode[to.counts[0]++] = item;
      partials += splits;
    }
  }
}

void host_inputs::order_prompts() {
  // The position that an item's last row sees up to.
  const auto end_of = [&](const attention_item& item) {
    const std::int32_t end =
        std::min(item.tile_begin + limits_.prefill_rows, item.of.rows * limits_.group);
    return item.of.first_position + (end - 1) / limits_.group;
  };
  const std::span items{at<attention_item>(layout_.prefill), prefill_items_};
  std::ranges::sort(items, [&](const attention_item& a, const attention_item& b) {
    const std::int32_t end_a = end_of(a), end_b = end_of(b);
    return end_a != end_b ? end_a > end_b : a.of.row_begin < b.of.row_begin;
  });
}

} // namespace troupe::engine::cuda
