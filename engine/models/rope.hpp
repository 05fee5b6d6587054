#pragma once

#include "engine/weights/model_config.hpp"

#include <cstdint>
#include <vector>

namespace troupe::engine {

/// Cosines and sines of rotary embeddings, [positions, dim / 2] each.
struct rope_tables {
  std::vector<float> cos;
  std::vector<float> sin;
  std::int64_t positions = 0;
};

/// The angle per position of each of the dim / 2 pairs, rounded to f32 as checkpoints were trained
/// with.
/// @source Su et al., "RoFormer" (2021); the scaling of the Llama 3.1 model card
[[nodiscard]] std::vector<float> rope_frequencies(const rope_config& rope, std::int64_t dim);

/// @cost   one sine and one cosine per entry
[[nodiscard]] rope_tables make_rope_tables(const rope_config& rope, std::int64_t dim,
                                           std::int64_t positions);

} // namespace troupe::engine
