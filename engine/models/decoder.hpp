#pragma once

#include "engine/models/loader.hpp"
#include "engine/models/model.hpp"

#include <memory>

namespace troupe::engine {

/// In what the families of this recipe differ.
struct decoder_options {
  /// RMS norms over each head of q and k, before rope.
  bool qk_norm = false;
};

/// Loads a pre-norm decoder: in each layer x += attention(norm(x)), x += mlp(norm(x)); then a last
/// norm and the head. Tensor names are those of Llama in the transformers library.
/// @errors as load_matrix; unsupported: the checkpoint has tensors that this model does not use
[[nodiscard]] result<std::unique_ptr<model>> load_decoder(const load_context& from,
                                                          const decoder_options& options);

} // namespace troupe::engine
