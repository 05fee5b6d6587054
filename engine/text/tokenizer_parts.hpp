#pragma once

#include "engine/text/added_tokens.hpp"
#include "engine/text/decoders/decoder.hpp"
#include "engine/text/models/model.hpp"
#include "engine/text/normalizers/normalizer.hpp"
#include "engine/text/post_processors/post_processor.hpp"
#include "engine/text/pre_tokenizers/pre_tokenizer.hpp"

#include <optional>
#include <string_view>
#include <vector>

namespace troupe::engine::text {

/// What a tokenizer.json is made of. Parts that the file leaves out are null.
struct tokenizer_parts {
  normalizer_ptr normalize;
  pre_tokenizer_ptr split;
  model_ptr encode;
  post_processor_ptr finish;
  std::vector<decoder_ptr> decode;
  added_tokens added;
  /// Whether tokens are written in GPT-2's byte alphabet.
  bool byte_level = false;

  /// The text of a token, added or of the model.
  [[nodiscard]] std::optional<std::string_view> text_of(token_id id) const noexcept {
    if (const added_token* token = added.find(id))
      return token->content;
    return encode->tokens().text(id);
  }
};

} // namespace troupe::engine::text
