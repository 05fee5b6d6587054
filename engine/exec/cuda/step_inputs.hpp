#pragma once

#include "engine/exec/cuda/device_model.hpp"
#include "engine/exec/cuda/runtime.hpp"
#include "engine/exec/cuda/sampling.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace troupe::engine::cuda {

/// How many of `each` cover `all`.
[[nodiscard]] constexpr std::int64_t count_of(std::int64_t all, std::int64_t each) noexcept {
  return (all + each - 1) / each;
}

/// Results of splits that one step may leave; sequences beyond that are walked whole.
inline constexpr std::uint64_t most_partials = 2048;
/// The word of a step's counts that says whether sequences have blocks in common, and the one where
/// those of the rows that sample begin.
inline constexpr std::size_t shared_word = 3;
inline constexpr std::size_t sampling_counts = 4;

/// The bounds of a step, which fix where its inputs lie on the device.
struct input_limits {
  std::uint32_t rows = 0;
  std::uint32_t sequences = 0;
  /// Entries of all block tables together.
  std::uint64_t table_entries = 0;
  /// Query heads that share one KV head.
  std::int32_t group = 1;
  std::int32_t kv_heads = 1;
  std::int32_t dim = 0;
  /// Rows of a tile of prompts: 64 gives the bits of decode, 128 is faster.
  std::int32_t prefill_rows = kernels::cuda::prefill_tile_rows;
  /// In a step of decodes alone, sequences of so many positions are not split; and splits of any
  /// step are as long as suits it. 0 where their length is split_positions always, for equal bits.
  std::int32_t whole_positions = 0;
};

/// Offsets of the arrays: first what every step has, then what grows with rows.
struct input_layout {
  std::uint64_t counts = 0;
  std::uint64_t pick = 0;
  std::uint64_t sampling = 0;
  std::uint64_t sequences = 0;
  std::uint64_t decode = 0;
  std::uint64_t join = 0;
  std::uint64_t prefill = 0;
  std::uint64_t batch = 0;
  /// Of the rows that sample alone, each a sequence.
  std::uint64_t sampling_batch = 0;
  std::uint64_t sampling_sequences = 0;
  std::uint64_t sampling_join = 0;
  std::uint64_t sampling_decode = 0;
  std::uint64_t tables = 0;
  std::uint64_t end = 0;

  input_layout() = default;
  explicit input_layout(const input_limits& limits);
};

/// The inputs of one step in page-locked memory, as plain arrays to be filled.
class host_inputs {
public:
  [[nodiscard]] static result<host_inputs> make(const input_limits& limits);

  void clear() noexcept;
  /// Appends a sequence with its rows and block table, and the items of a prompt's attention.
  /// @param  begins  they are its first rows: what is in front of them may be from this very step
  void add(const kernels::cuda::sequence_rows& rows, std::span<const block_id> blocks,
           bool begins = false);
  void add_row(const kernels::cuda::batch_row& row) { batch()[rows_++] = row; }
  /// Puts the items of prompts in the order in which they are to begin: those that see most first,
  /// whatever sequence they are of.
  void order_prompts();
  /// Makes the items of all other attention, the longest first: once all sequences are there. And
  /// those of the rows that sample, for a layer that has no others (forward_batch::sampling).
  void deal_decodes();
  /// The row that was added last samples.
  void pick(const sampling_row& how);
  /// Rows of nothing up to `rows`, for graphs.
  void pad(std::uint32_t rows);

  [[nodiscard]] std::uint32_t rows() const noexcept { return rows_; }
  [[nodiscard]] std::uint32_t picked() const noexcept { return picked_; }
  [[nodiscard]] std::uint32_t sequences() const noexcept { return sequences_; }
  [[nodiscard]] std::uint32_t prefill_items() const noexcept { return prefill_items_; }
  /// Every row is a sequence's last, and none is a prompt's.
  [[nodiscard]] bool decodes_alone() const noexcept {
    return prefill_items_ == 0 && picked_ == rows_;
  }
  /// Of decodes alone: some row reads what another one stores in the same step. Asked once all
  /// sequences are there.
  [[nodiscard]] bool reads_own_stores();
  [[nodiscard]] std::int32_t decode_items() const noexcept { return counts()[0]; }
  [[nodiscard]] std::int32_t joins() const noexcept { return counts()[1]; }
  [[nodiscard]] bool any_random() const noexcept { return any_random_; }
  [[nodiscard]] bool any_bounded() const noexcept { return any_bounded_; }
  [[nodiscard]] bool any_logprobs() const noexcept { return any_logprobs_; }

private:
  friend class device_inputs;

  /// Where the items of some sequences go. `counts` are decode items, joins, and decode items that
  /// are taken on the device.
  struct item_lists {
    const kernels::cuda::sequence_rows* sequences;
    std::int32_t* counts;
    kernels::cuda::attention_item* decode;
    kernels::cuda::attention_item* join;
    /// Teams of 8, 4, 2 or 1 warps walk the items, as turned_attention() has them; else pairs.
    bool teams = false;

    [[nodiscard]] std::int32_t end_of(std::int32_t i) const noexcept {
      return sequences[i].first_position + sequences[i].rows;
    }
  };

  /// Whether attention takes a sequence by the larger tiles.
  [[nodiscard]] bool is_prompt(const kernels::cuda::sequence_rows& rows) const noexcept;
  void deal_sampling();
  /// The blocks of a sequence that has been added.
  [[nodiscard]] std::span<const std::int32_t> table_of(std::uint32_t sequence) const noexcept;
  /// The block of each sequence that is chosen of its table, in order.
  template <class Choice>
  [[nodiscard]] std::span<const std::int32_t> sorted_blocks(Choice of);
  /// Whether sequences have blocks in common: those of a prefix, so the first of all.
  [[nodiscard]] bool shares_blocks();
  /// Makes the items of the sequences that are in `order_`.
  void deal(const item_lists& to);
  /// About how many positions a split is to have, so that few partial results are left and most
  /// warps have work at once, in as large teams as may be.
  /// @param share  of all positions, what a multiprocessor has of them
  [[nodiscard]] std::int64_t wanted_length(const item_lists& to, std::int64_t share) const;
  /// Of a sequence.
  [[nodiscard]] std::int32_t tiles_of_rows(const item_lists& to, std::int32_t i) const;
  template <class T>
  [[nodiscard]] T* at(std::uint64_t offset) const noexcept {
    return reinterpret_cast<T*>(memory_.as<std::byte>() + offset);
  }
  [[nodiscard]] std::int32_t* counts() const noexcept;
  [[nodiscard]] kernels::cuda::batch_row* batch() const noexcept {
    return at<kernels::cuda::batch_row>(layout_.batch);
  }

  input_limits limits_;
  input_layout layout_;
  pinned_buffer memory_;
  std::uint32_t rows_ = 0;
  std::uint32_t picked_ = 0;
  std::uint32_t sequences_ = 0;
  std::uint32_t prefill_items_ = 0;
  std::uint64_t table_entries_ = 0;
  /// From the first to behind the last row that is no prompt's.
  std::int32_t decodes_begin_ = 0;
  std::int32_t decodes_end_ = 0;
  /// Sequences in the order of their items.
  std::vector<std::int32_t> order_;
  /// A block of each.
  std::vector<std::int32_t> blocks_;
  /// Sequences whose first rows have something in front of them.
  std::vector<std::uint32_t> begun_behind_;
  bool any_random_ = false;
  bool any_bounded_ = false;
  bool any_logprobs_ = false;
};

/// Where the inputs of the step that runs lie on the device: always at the same addresses, so that
/// graphs stay good.
class device_inputs {
public:
  [[nodiscard]] static result<device_inputs> make(const input_limits& limits);
  /// Bytes of the device that make() takes.
  [[nodiscard]] static std::uint64_t bytes_for(const input_limits& limits);

  /// Copies a step's inputs over; ordered on the stream.
  [[nodiscard]] result<void> send(const host_inputs& from, stream_ref on);

  /// The batch that was sent, and how its rows sample.
  [[nodiscard]] forward_batch batch_of(const host_inputs& sent) const;
  [[nodiscard]] const sampling_row* sampling() const noexcept;

private:
  input_limits limits_;
  input_layout layout_;
  device_buffer memory_;
  device_buffer partials_;
};

} // namespace troupe::engine::cuda
