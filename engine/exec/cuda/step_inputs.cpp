#include "engine/exec/cuda/step_inputs.hpp"

#include "troupe/base/check.hpp"

#include <algorithm>

namespace troupe::engine::cuda {

namespace {

using kernels::cuda::attention_item;
using kernels::cuda::batch_row;
using kernels::cuda::decode_tile_rows;

std::uint64_t partial_bytes(const input_limits& limits) {
  return most_partials * static_cast<std::uint64_t>(limits.kv_heads) *
         static_cast<std::uint64_t>(kernels::cuda::partial_floats(limits.dim)) * sizeof(float);
}

} // namespace

input_layout::input_layout(const input_limits& limits) {
  const std::uint64_t seqs = limits.sequences;
  const std::uint64_t tiles =
      seqs * static_cast<std::uint64_t>(count_of(limits.group, decode_tile_rows));
  const std::uint64_t prefills = seqs + std::uint64_t{limits.rows} *
                                            static_cast<std::uint64_t>(limits.group) /
                                            static_cast<std::uint64_t>(limits.prefill_rows);
  std::uint64_t next = 0;
  const auto place = [&next](std::uint64_t& at, std::uint64_t bytes) {
    at = next;
    next += (bytes + 255) / 256 * 256;
  };
  place(counts, 256);
  place(pick, seqs * sizeof(std::int32_t));
  place(sampling, seqs * sizeof(sampling_row));
  place(sequences, seqs * sizeof(kernels::cuda::sequence_rows));
  place(join, tiles * sizeof(attention_item));
  place(decode, (most_partials + tiles) * sizeof(attention_item));
  place(prefill, prefills * sizeof(attention_item));
  place(batch, std::uint64_t{limits.rows} * sizeof(batch_row));
  place(sampling_batch, seqs * sizeof(batch_row));
  place(sampling_sequences, seqs * sizeof(kernels::cuda::sequence_rows));
  place(sampling_join, tiles * sizeof(attention_item));
  place(sampling_decode, (most_partials + tiles) * sizeof(attention_item));
  place(tables, limits.table_entries * sizeof(std::int32_t));
  end = next;
}

result<host_inputs> host_inputs::make(const input_limits& limits) {
  host_inputs made;
  made.limits_ = limits;
  made.layout_ = input_layout{limits};
  made.order_.reserve(limits.sequences);
  made.blocks_.reserve(limits.sequences);
  made.begun_behind_.reserve(limits.sequences);
  auto memory = pinned_buffer::make(made.layout_.end, "inputs of steps");
  if (!memory)
    return fail(memory.error());
  made.memory_ = std::move(*memory);
  made.clear();
  return made;
}

std::int32_t* host_inputs::counts() const noexcept { return at<std::int32_t>(0); }

void host_inputs::clear() noexcept {
  rows_ = picked_ = sequences_ = prefill_items_ = 0;
  table_entries_ = 0;
  decodes_begin_ = decodes_end_ = 0;
  begun_behind_.clear();
  any_random_ = any_bounded_ = any_logprobs_ = false;
  std::fill_n(counts(), sampling_counts + 3, 0);
}

void host_inputs::add(const kernels::cuda::sequence_rows& rows, std::span<const block_id> blocks,
                      bool begins) {
  TROUPE_CHECK(table_entries_ + blocks.size() <= limits_.table_entries, "{} block table entries",
               table_entries_ + blocks.size());
  auto placed = rows;
  placed.table_begin = static_cast<std::int32_t>(table_entries_);
  at<kernels::cuda::sequence_rows>(layout_.sequences)[sequences_] = placed;
  auto* const table = at<std::int32_t>(layout_.tables) + table_entries_;
  for (std::size_t i = 0; i < blocks.size(); ++i)
    table[i] = static_cast<std::int32_t>(value(blocks[i]));
  table_entries_ += blocks.size();
  if (begins && rows.first_position > 0)
    begun_behind_.push_back(sequences_);
  ++sequences_;
  const std::int32_t tile_rows = rows.rows * limits_.group;
  if (!is_prompt(rows)) {
    if (decodes_begin_ == decodes_end_)
      decodes_begin_ = rows.row_begin;
    decodes_end_ = rows.row_begin + rows.rows;
    return;
  }
  for (std::int32_t begin = 0; begin < tile_rows; begin += limits_.prefill_rows)
    at<attention_item>(layout_.prefill)[prefill_items_++] = {.tile_begin = begin, .of = placed};
}

std::span<const std::int32_t> host_inputs::table_of(std::uint32_t sequence) const noexcept {
  const auto* const sequences = at<kernels::cuda::sequence_rows>(layout_.sequences);
  const auto begin_of = [&](std::uint32_t i) {
    return i < sequences_ ? static_cast<std::uint64_t>(sequences[i].table_begin) : table_entries_;
  };
  return {at<std::int32_t>(layout_.tables) + begin_of(sequence),
          begin_of(sequence + 1) - begin_of(sequence)};
}

template <class Choice>
std::span<const std::int32_t> host_inputs::sorted_blocks(Choice of) {
  blocks_.clear();
  for (std::uint32_t i = 0; i < sequences_; ++i)
    blocks_.push_back(of(table_of(i)));
  std::ranges::sort(blocks_);
  return blocks_;
}

bool host_inputs::shares_blocks() {
  const auto firsts = sorted_blocks([](const auto& table) { return table.front(); });
  return std::ranges::adjacent_find(firsts) != firsts.end();
}

bool host_inputs::reads_own_stores() {
  if (begun_behind_.empty())
    return false;
  // Each row stores to the last block of its sequence.
  const auto stored = sorted_blocks([](const auto& table) { return table.back(); });
  return std::ranges::any_of(begun_behind_, [&](std::uint32_t sequence) {
    const auto table = table_of(sequence);
    return std::ranges::any_of(table.first(table.size() - 1), [&](std::int32_t block) {
      return std::ranges::binary_search(stored, block);
    });
  });
}

void host_inputs::pick(const sampling_row& how) {
  at<std::int32_t>(layout_.pick)[picked_] = static_cast<std::int32_t>(rows_ - 1);
  at<sampling_row>(layout_.sampling)[picked_] = how;
  ++picked_;
  any_random_ = any_random_ || how.temperature != 0;
  any_bounded_ = any_bounded_ || how.bounded != 0;
  any_logprobs_ = any_logprobs_ || how.logprobs >= 0;
}

void host_inputs::pad(std::uint32_t rows) {
  auto* const picks = at<std::int32_t>(layout_.pick);
  for (std::uint32_t i = rows_; i < rows; ++i) {
    batch()[i] = {};
    picks[i] = static_cast<std::int32_t>(i);
  }
}

std::uint64_t device_inputs::bytes_for(const input_limits& limits) {
  return input_layout{limits}.end + partial_bytes(limits);
}

result<device_inputs> device_inputs::make(const input_limits& limits) {
  device_inputs made;
  made.limits_ = limits;
  made.layout_ = input_layout{limits};
  auto memory = device_buffer::make(made.layout_.end, "inputs of steps");
  if (!memory)
    return fail(memory.error());
  made.memory_ = std::move(*memory);
  auto partials = device_buffer::make(partial_bytes(limits), "partial results of attention");
  if (!partials)
    return fail(partials.error());
  made.partials_ = std::move(*partials);
  return made;
}

result<void> device_inputs::send(const host_inputs& from, stream_ref on) {
  // Whole vectors; all arrays have room for that.
  const auto range = [](std::uint64_t begin, std::uint64_t bytes) {
    return kernels::cuda::memory_range{static_cast<std::int64_t>(begin),
                                       static_cast<std::int64_t>((bytes + 15) / 16 * 16)};
  };
  const auto items_of = [&](std::size_t count) {
    return static_cast<std::uint64_t>(from.counts()[count]) * sizeof(attention_item);
  };
  const std::uint64_t items = from.prefill_items_ > 0
                                  ? layout_.prefill + from.prefill_items_ * sizeof(attention_item)
                                  : layout_.decode + items_of(0);
  // Padding rows stand behind the real ones, at most to the next bucket.
  const std::uint64_t rows = std::min<std::uint64_t>(
      limits_.rows, from.prefill_items_ > 0 ? from.rows_ : from.rows_ * 2 + 64);
  const std::uint64_t own = items_of(sampling_counts);
  return kernels::cuda::copy_ranges(
      {.from = from.memory_.data(),
       .to = memory_.data(),
       .ranges = {range(0, items), range(layout_.batch, rows * sizeof(batch_row)),
                  range(layout_.sampling_batch,
                        own == 0 ? 0 : layout_.sampling_decode + own - layout_.sampling_batch),
                  range(layout_.tables, from.table_entries_ * sizeof(std::int32_t))}},
      on);
}

forward_batch device_inputs::batch_of(const host_inputs& sent) const {
  const auto at = [&]<class T>(std::uint64_t offset, const T*) {
    return reinterpret_cast<const T*>(memory_.as<std::byte>() + offset);
  };
  const attention_item* items = nullptr;
  const std::int32_t* words = nullptr;
  forward_batch batch;
  batch.rows = sent.rows_;
  batch.picked = sent.picked_;
  batch.pick = at(layout_.pick, words);
  batch.batch = at(layout_.batch, batch.batch);
  batch.decodes_begin = sent.decodes_begin_;
  batch.decodes_end = sent.decodes_end_;
  kernels::cuda::attention_args& attention = batch.attention;
  attention.sequences = at(layout_.sequences, attention.sequences);
  attention.block_tables = at(layout_.tables, words);
  attention.prefill = at(layout_.prefill, items);
  attention.prefill_items = sent.prefill_items_;
  attention.prefill_rows = limits_.prefill_rows;
  attention.decode = at(layout_.decode, items);
  attention.decode_count = at(layout_.counts, words);
  attention.join = at(layout_.join, items);
  attention.join_count = attention.decode_count + 1;
  attention.taken = memory_.as<std::int32_t>() + 2;
  attention.shared = attention.decode_count + shared_word;
  attention.decode_items_max = sent.counts()[0];
  attention.join_items_max = sent.counts()[1];
  attention.partials = partials_.as<float>();
  if (sent.picked_ == sent.rows_)
    return batch;
  batch.sampling = attention;
  kernels::cuda::attention_args& own = batch.sampling;
  own.rows = sent.picked_;
  own.batch = at(layout_.sampling_batch, batch.batch);
  own.sequences = at(layout_.sampling_sequences, attention.sequences);
  own.prefill_items = 0;
  own.decode = at(layout_.sampling_decode, items);
  own.decode_count = attention.decode_count + sampling_counts;
  own.join = at(layout_.sampling_join, items);
  own.join_count = own.decode_count + 1;
  own.taken = attention.taken + sampling_counts;
  own.decode_items_max = sent.counts()[sampling_counts];
  own.join_items_max = sent.counts()[sampling_counts + 1];
  return batch;
}

const sampling_row* device_inputs::sampling() const noexcept {
  return reinterpret_cast<const sampling_row*>(memory_.as<std::byte>() + layout_.sampling);
}

} // namespace troupe::engine::cuda
