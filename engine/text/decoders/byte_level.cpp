#include "engine/text/byte_alphabet.hpp"
#include "engine/text/decoders/decoder.hpp"
#include "engine/text/utf8.hpp"

namespace troupe::engine::text {

namespace {

/// Reads tokens written in GPT-2's byte alphabet; a token that is not (an added one) stands for its
/// own text. All tokens become one; what is no UTF-8 becomes U+FFFD.
class byte_level_decoder final : public decoder {
public:
  void push(decoder_state& state, const fragment& next, fragments& out) const override {
    // Whether a token is in the alphabet shows only at its end.
    state.held += next.text;
    if (!next.ends_token)
      return;
    if (const auto bytes = from_byte_alphabet(state.held))
      state.bytes += *bytes;
    else
      state.bytes += state.held;
    state.held.clear();
    emit(state, out, false);
  }

  void finish(decoder_state& state, fragments& out) const override {
    state.bytes += state.held;
    state.held.clear();
    emit(state, out, true);
  }

private:
  static void emit(decoder_state& state, fragments& out, bool at_end) {
    std::string certain;
    move_utf8_lossy(state.bytes, certain, at_end);
    if (!certain.empty() || at_end)
      out.add(certain, state.count++ == 0, at_end);
  }
};

} // namespace

result<decoder_ptr> make_byte_level_decoder(const json_view& /*at*/) {
  return std::make_unique<byte_level_decoder>();
}

} // namespace troupe::engine::text
