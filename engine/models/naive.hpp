#pragma once

#include "engine/weights/model_config.hpp"
#include "engine/weights/weight_source.hpp"

#include <map>
#include <span>
#include <string>
#include <vector>

/// Test support: a decoder written from the definitions, in double, one token after the other and
/// without a cache, batch or packing. It shares no code with the recipes.
namespace troupe::engine::test {

class naive_decoder {
public:
  naive_decoder(model_config config, weight_source& source)
      : config_{std::move(config)}, source_{&source} {}

  /// The logits behind the last of `tokens`.
  [[nodiscard]] std::vector<double> logits(std::span<const token_id> tokens);

private:
  using row = std::vector<double>;

  const std::vector<double>& weight(const std::string& name, std::int64_t rows, std::int64_t cols);
  row product(const std::string& name, const row& x, std::int64_t rows);
  row norm(const std::string& name, const row& x);
  void turn(row& x, std::size_t head, std::int64_t position);
  void norm_head(const std::string& name, row& x, std::size_t head);
  row attend(const row& q, const std::vector<row>& keys, const std::vector<row>& values);
  void layer(std::int64_t index, std::vector<row>& residual);

  model_config config_;
  weight_source* source_;
  std::map<std::string, std::vector<double>> weights_;
};

} // namespace troupe::engine::test
