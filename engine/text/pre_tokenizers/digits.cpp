#include "engine/text/pre_tokenizers/delimiters.hpp"
#include "engine/text/pre_tokenizers/pre_tokenizer.hpp"
#include "engine/text/utf8.hpp"

#include <utility>

namespace troupe::engine::text {

namespace {

/// Sets numbers apart from what surrounds them: whole, or digit by digit.
class digits final : public pre_tokenizer {
public:
  explicit digits(bool individual)
      : behavior_{individual ? split_behavior::isolated : split_behavior::contiguous} {}

  result<void> split(split_text& text) const override {
    std::vector<byte_range> pieces;
    for (const byte_range& piece : text.pieces) {
      const auto parts = split_at(piece, digits_of(text, piece), behavior_, false);
      pieces.insert(pieces.end(), parts.begin(), parts.end());
    }
    text.pieces = std::move(pieces);
    return {};
  }

private:
  static std::vector<byte_range> digits_of(const split_text& text, const byte_range& piece) {
    std::vector<byte_range> found;
    const std::string_view view = text.view(piece);
    for (std::size_t at = 0; at < view.size();) {
      const utf8_char next = decode_utf8(view.substr(at));
      if (is_numeric(next.code))
        found.push_back({piece.begin + at, piece.begin + at + next.bytes});
      at += next.bytes;
    }
    return found;
  }

  split_behavior behavior_;
};

} // namespace

result<pre_tokenizer_ptr> make_digits(const json_view& at) {
  const auto individual = at.flag("individual_digits", false);
  if (!individual)
    return fail(individual.error());
  return std::make_unique<digits>(*individual);
}

} // namespace troupe::engine::text
