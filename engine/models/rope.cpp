#include "engine/models/rope.hpp"

#include <cmath>
#include <numbers>

namespace troupe::engine {

namespace {

/// The frequency that Llama 3 uses in place of `frequency`: waves much shorter than the original
/// context stay, much longer ones are stretched by `factor`, and those between are blended.
double llama3_frequency(const rope_config& rope, double frequency) {
  const double wave = 2.0 * std::numbers::pi / frequency;
  const double turns = rope.original_max_position_embeddings / wave;
  if (turns > rope.high_freq_factor)
    return frequency;
  if (turns < rope.low_freq_factor)
    return frequency / rope.factor;
  const double blend =
      (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return (1.0 - blend) * frequency / rope.factor + blend * frequency;
}

} // namespace

std::vector<float> rope_frequencies(const rope_config& rope, std::int64_t dim) {
  std::vector<float> frequencies;
  for (std::int64_t pair = 0; pair < dim / 2; ++pair) {
    const double exponent = 2.0 * static_cast<double>(pair) / static_cast<double>(dim);
    double frequency = std::pow(rope.theta, -exponent);
    if (rope.scaling == rope_scaling::linear)
      frequency /= rope.factor;
    else if (rope.scaling == rope_scaling::llama3)
      frequency = llama3_frequency(rope, frequency);
    frequencies.push_back(static_cast<float>(frequency));
  }
  return frequencies;
}

rope_tables make_rope_tables(const rope_config& rope, std::int64_t dim, std::int64_t positions) {
  const std::vector<float> frequencies = rope_frequencies(rope, dim);
  rope_tables tables;
  tables.positions = positions;
  tables.cos.reserve(static_cast<std::size_t>(positions) * frequencies.size());
  tables.sin.reserve(static_cast<std::size_t>(positions) * frequencies.size());
  for (std::int64_t position = 0; position < positions; ++position) {
    for (const float frequency : frequencies) {
      // Checkpoints are trained with the product in f32; a more exact angle would be another model.
      const float angle = static_cast<float>(position) * frequency;
      tables.cos.push_back(std::cos(angle));
      tables.sin.push_back(std::sin(angle));
    }
  }
  return tables;
}

} // namespace troupe::engine
