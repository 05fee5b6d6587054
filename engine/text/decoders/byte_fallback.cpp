#include "engine/text/decoders/decoder.hpp"
#include "engine/text/utf8.hpp"

#include <charconv>
#include <optional>

namespace troupe::engine::text {

namespace {

/// The byte of a token "<0xAB>".
std::optional<char> byte_of(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || !token.ends_with('>'))
    return std::nullopt;
  std::uint8_t byte = 0;
  const char* const end = token.data() + 5;
  const auto read = std::from_chars(token.data() + 3, end, byte, 16);
  if (read.ptr != end || read.ec != std::errc{})
    return std::nullopt;
  return static_cast<char>(byte);
}

/// Joins runs of tokens such as "<0xE2>" into characters. A run that is not valid UTF-8 as a whole
/// becomes one U+FFFD a byte, so nothing of a run is certain before it ends.
class byte_fallback final : public decoder {
public:
  void push(decoder_state& state, const fragment& next, fragments& out) const override {
    state.held += next.text;
    if (!next.ends_token)
      return;
    if (const auto byte = byte_of(state.held)) {
      state.bytes += *byte;
    } else {
      flush(state, out);
      out.add(state.held, true, true);
    }
    state.held.clear();
  }

  void finish(decoder_state& state, fragments& out) const override {
    flush(state, out);
    if (!state.held.empty())
      out.add(state.held, true, true);
    state.held.clear();
  }

private:
  static void flush(decoder_state& state, fragments& out) {
    if (state.bytes.empty())
      return;
    if (find_invalid_utf8(state.bytes) == std::string::npos) {
      out.add(state.bytes, true, true);
    } else {
      for (std::size_t i = 0; i < state.bytes.size(); ++i)
        out.add("\xEF\xBF\xBD", true, true);
    }
    state.bytes.clear();
  }
};

} // namespace

result<decoder_ptr> make_byte_fallback(const json_view& /*at*/) {
  return std::make_unique<byte_fallback>();
}

} // namespace troupe::engine::text
