#pragma once

#include "engine/text/decoders/decoder.hpp"
#include "troupe/base/ids.hpp"

#include <cstddef>
#include <string>
#include <vector>

namespace troupe::engine::text {

class tokenizer;

struct detokenizer_options {
  bool skip_special_tokens = true;
};

/// Turns a stream of token ids into text as the ids come. What it has emitted, with what flush()
/// gives, equals tokenizer::decode of all the ids, whatever the ids; it never emits a part of a
/// character. A copy is a stream of its own that goes on from the same place. The tokenizer must
/// outlive it.
class detokenizer {
public:
  explicit detokenizer(const tokenizer& source, detokenizer_options options = {});

  /// The text that is certain once `id` is known and that was not emitted before; often empty.
  /// @cost amortised linear in the bytes of the token
  [[nodiscard]] std::string push(token_id id);

  /// The rest of the text; the stream is then as new.
  [[nodiscard]] std::string flush();

  /// What the stream remembers: one state a stage. Together with the ids' order nothing else
  /// matters, so a stream is moved by its state, or by pushing all its ids again.
  [[nodiscard]] const std::vector<decoder_state>& state() const noexcept { return states_; }

private:
  /// Lets what is in `current_` run through the stages from `first` on; the text that comes out.
  std::string run(std::size_t first);

  const tokenizer* source_;
  detokenizer_options options_;
  std::vector<decoder_state> states_;
  fragments current_;
  fragments next_;
};

} // namespace troupe::engine::text
