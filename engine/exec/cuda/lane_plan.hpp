#pragma once

#include <cstdint>
#include <span>

/// Whether a step of answers and prompts runs in one lane, all of it on the whole card one kernel
/// after the other, or in two, the answers' rows and the prompts' each on a part of the
/// multiprocessors at the same time: reading the KV of answers leaves the tensor cores idle, which
/// prompts want, and those leave the memory idle. Pure.
namespace troupe::engine::cuda {

/// The layers of a model, as far as their time depends on them.
struct lane_model {
  double layers = 0;
  double weight_bytes = 0;
  /// Of products, for one row.
  double row_flops = 0;
  /// What one row writes and reads between kernels.
  double row_bytes = 0;
  /// Read by an answer for each position that is stored.
  double position_bytes = 0;
  /// For each position that a row of a prompt sees.
  double pair_flops = 0;
};

/// The rows of a step.
struct lane_load {
  double answer_rows = 0;
  /// Positions that they see, of all rows together.
  double answer_positions = 0;
  double prompt_rows = 0;
  /// Positions that prompts' rows see, of all rows together.
  double prompt_pairs = 0;
};

/// What an H100 SXM gives (tests/bench/figures), but for `reading_power`, which is reckoned.
struct lane_card {
  int multiprocessors = 132;
  /// Bytes a second of all multiprocessors, and of each at most.
  double read = 2.95e12;
  double read_each = 65e9;
  /// Products of many rows under the limit of power, and of each multiprocessor where that does not
  /// bind; attention of prompts.
  double flops = 680e12;
  double flops_each = 7.0e12;
  double attention_flops = 450e12;
  /// The power of reading at full rate, as a share of that which products draw at most; both beyond
  /// what the card draws in any case.
  double reading_power = 0.4;
  /// Begins and ends of the kernels of a layer.
  double layer_seconds = 25e-6;
  /// Norms and rope, a row and layer.
  double row_seconds = 27e-9;
};

/// Seconds of a step's layers in one lane.
[[nodiscard]] double reckon_one_lane(const lane_model& model, const lane_load& load,
                                     const lane_card& card = {}) noexcept;

/// Seconds with so many multiprocessors for answers and all others for prompts.
struct lane_times {
  double answers = 0;
  double prompts = 0;
  /// What memory and power take for both together.
  double shared = 0;

  [[nodiscard]] double step() const noexcept;
};
[[nodiscard]] lane_times reckon_lanes(const lane_model& model, const lane_load& load,
                                      int for_answers, const lane_card& card = {}) noexcept;

/// Which of some numbers of multiprocessors for answers is the fastest; 0 where one lane is, or is
/// slower by less than what the reckoning may be wrong by (3 %).
[[nodiscard]] int choose_lanes(const lane_model& model, const lane_load& load,
                               std::span<const int> offered, const lane_card& card = {}) noexcept;

} // namespace troupe::engine::cuda
