#include "engine/exec/cuda/lane_plan.hpp"

#include <algorithm>
#include <cmath>

namespace troupe::engine::cuda {

namespace {

/// What two lanes have to gain at least.
constexpr double least_gain = 0.03;

/// Some multiprocessors of a card.
struct part {
  double read;
  double flops;
  double attention_flops;
  /// Of the whole.
  double share;
};

part whole_of(const lane_card& card) noexcept {
  return {card.read, card.flops, card.attention_flops, 1};
}

/// Fewer multiprocessors have a higher clock until the card's power binds, which `shared` tells.
part part_of(const lane_card& card, int count) noexcept {
  const double share = static_cast<double>(count) / card.multiprocessors;
  const double faster = card.flops_each * card.multiprocessors / card.flops;
  return {std::min(card.read, card.read_each * count), card.flops_each * count,
          card.attention_flops * faster * share, share};
}

/// Begins and ends, norms and rope.
double small_time(const lane_model& model, double rows, const lane_card& card,
                  const part& on) noexcept {
  return model.layers * (card.layer_seconds + card.row_seconds * rows / on.share);
}

/// Products and what is small of so many rows. Weights are read while products are made, but not
/// all of the one hides behind the other: where both would take the same time, it is a quarter
/// more.
double rows_time(const lane_model& model, double rows, const lane_card& card,
                 const part& on) noexcept {
  const double made = model.row_flops * rows / on.flops;
  const double read = model.weight_bytes / on.read;
  return std::cbrt(made * made * made + read * read * read) + small_time(model, rows, card, on);
}

double answers_time(const lane_model& model, const lane_load& load, const part& on) noexcept {
  return model.position_bytes * load.answer_positions / on.read;
}

double prompts_time(const lane_model& model, const lane_load& load, const part& on) noexcept {
  return model.pair_flops * load.prompt_pairs / on.attention_flops;
}

} // namespace

double lane_times::step() const noexcept { return std::max({answers, prompts, shared}); }

double reckon_one_lane(const lane_model& model, const lane_load& load,
                       const lane_card& card) noexcept {
  const part on = whole_of(card);
  return rows_time(model, load.answer_rows + load.prompt_rows, card, on) +
         answers_time(model, load, on) + prompts_time(model, load, on);
}

lane_times reckon_lanes(const lane_model& model, const lane_load& load, int for_answers,
                        const lane_card& card) noexcept {
  const part answers = part_of(card, for_answers);
  const part prompts = part_of(card, card.multiprocessors - for_answers);
  const double rows = load.answer_rows + load.prompt_rows;
  const part whole = whole_of(card);
  // Of what a single lane would read too, weights are read by both.
  const double beside =
      (model.weight_bytes + model.position_bytes * load.answer_positions) / card.read;
  // L2 holds about half of what passes between kernels.
  const double read = beside + (model.weight_bytes + model.row_bytes * rows / 2) / card.read;
  // At the limit of power products take as long together as they do one after the other, and what
  // reads beside them takes its share of the power away.
  const double power = model.row_flops * rows / whole.flops + prompts_time(model, load, whole) +
                       card.reading_power * (beside + small_time(model, rows, card, whole));
  return {.answers = rows_time(model, load.answer_rows, card, answers) +
                     answers_time(model, load, answers),
          .prompts = rows_time(model, load.prompt_rows, card, prompts) +
                     prompts_time(model, load, prompts),
          .shared = std::max(read, power)};
}

int choose_lanes(const lane_model& model, const lane_load& load, std::span<const int> offered,
                 const lane_card& card) noexcept {
  if (load.answer_rows == 0 || load.prompt_rows == 0)
    return 0;
  int best = 0;
  double least = reckon_one_lane(model, load, card) * (1 - least_gain);
  double longer_lane = least;
  for (const int count : offered) {
    const lane_times times = reckon_lanes(model, load, count, card);
    const double lane = std::max(times.answers, times.prompts);
    // Where memory or power decide, lanes that end together leave the most room for error.
    if (times.step() < least || (times.step() == least && lane < longer_lane)) {
      best = count;
      least = times.step();
      longer_lane = lane;
    }
  }
  return best;
}

} // namespace troupe::engine::cuda
