#pragma once

#include "engine/weights/fingerprint.hpp"
#include "kernels/cpu/tensor.hpp"
#include "troupe/base/error.hpp"
#include "troupe/base/ids.hpp"

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::engine {

/// How the frequencies of rotary embeddings are scaled for long contexts.
enum class rope_scaling : std::uint8_t { none, linear, llama3 };

/// Rotary position embedding, as in `rope_theta` with `rope_scaling` or in `rope_parameters`.
struct rope_config {
  rope_scaling scaling = rope_scaling::none;
  double theta = 10000.0;
  double factor = 1.0;
  /// Of llama3 alone.
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  double original_max_position_embeddings = 8192.0;
};

/// The shape of a model, from its config.json; every number is checked to be sane.
struct model_config {
  /// "LlamaForCausalLM", ...
  std::string architecture;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t layers = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t vocab_size = 0;
  /// Positions that the model was made for.
  std::int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  rope_config rope;
  /// The output head is the embedding table.
  bool tie_word_embeddings = false;
  /// The checkpoint's type.
  kernels::dtype dtype = kernels::dtype::f32;
  /// Empty when the file names none.
  std::vector<token_id> eos_token_ids;

  /// Elements of the matrices of all layers: projections of attention and of the MLP.
  [[nodiscard]] std::uint64_t layer_elements() const noexcept;
  /// Elements of the embedding table, and of the output head.
  [[nodiscard]] std::uint64_t table_elements() const noexcept {
    return static_cast<std::uint64_t>(vocab_size) * static_cast<std::uint64_t>(hidden_size);
  }
  /// Adds everything that enters the computation.
  void add_to(fingerprint& print) const noexcept;
};

/// What config.json means where it is silent, for one architecture.
struct architecture_defaults {
  /// The name in `architectures`.
  std::string_view name;
  /// 0: hidden_size / num_attention_heads.
  std::int64_t head_dim = 0;
  std::int64_t max_position_embeddings = 2048;
  /// The architecture's own configuration class has a sliding window when the file is silent.
  bool sliding_window = false;
};

/// Reads the text of a config.json of one of the `known` architectures, with old or new key names:
/// rope_theta and rope_scaling or rope_parameters, torch_dtype or dtype, one end-of-sequence token
/// or a list. `name` is put before the notes of errors.
/// @errors corrupt_data: no JSON object; invalid_argument: a field is missing, of a wrong type or
///         out of range; unsupported: an architecture not in `known` (the note lists them), or a
///         field that changes the computation in a way that is not served (the note names it)
[[nodiscard]] result<model_config> parse_model_config(std::string_view text, std::string_view name,
                                                      std::span<const architecture_defaults> known);

/// Reads `model_dir`/config.json.
/// @errors as parse_model_config; not_found, io_failure
[[nodiscard]] result<model_config> read_model_config(const std::filesystem::path& model_dir,
                                                     std::span<const architecture_defaults> known);

} // namespace troupe::engine
