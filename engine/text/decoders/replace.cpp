#include "engine/text/decoders/decoder.hpp"
#include "engine/text/pattern.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace troupe::engine::text {

namespace {

constexpr std::size_t max_literal_bytes = 256;

/// Replaces a literal inside every token.
class replace final : public decoder {
public:
  replace(pattern what, std::string content)
      : what_{std::move(what)}, content_{std::move(content)} {}

  void push(decoder_state& state, const fragment& next, fragments& out) const override {
    // count: whether the start of this token has been passed on.
    if (next.begins_token)
      state.count = 0;
    state.held += next.text;
    std::string certain;
    std::size_t at = 0;
    const std::string& literal = what_.literal();
    for (std::size_t found = 0; (found = state.held.find(literal, at)) != std::string::npos;) {
      certain.append(state.held, at, found - at).append(content_);
      at = found + literal.size();
    }
    const std::size_t kept =
        next.ends_token ? 0 : unfinished(std::string_view{state.held}.substr(at));
    certain.append(state.held, at, state.held.size() - at - kept);
    state.held.erase(0, state.held.size() - kept);
    if (!certain.empty() || next.ends_token)
      out.add(certain, state.count++ == 0, next.ends_token);
  }

  void finish(decoder_state& state, fragments& out) const override {
    if (!state.held.empty())
      out.add(state.held, state.count == 0, true);
    state = {};
  }

private:
  /// How many bytes at the end of `text` may be the start of the literal.
  [[nodiscard]] std::size_t unfinished(std::string_view text) const {
    const std::string_view literal = what_.literal();
    std::size_t size = std::min(text.size(), literal.size() - 1);
    while (size > 0 && !text.ends_with(literal.substr(0, size)))
      --size;
    return size;
  }

  pattern what_;
  std::string content_;
};

} // namespace

result<decoder_ptr> make_replace_decoder(const json_view& at) {
  const auto where = at.child("pattern");
  if (!where)
    return fail(where.error());
  auto what = pattern::load(*where);
  if (!what)
    return fail(what.error());
  if (!what->is_literal() || what->literal().size() > max_literal_bytes)
    return where->refuse(
        errc::unsupported,
        fmt::format("a decoder replaces only a \"String\" of at most {} bytes", max_literal_bytes));
  auto content = at.text("content");
  if (!content)
    return fail(content.error());
  return std::make_unique<replace>(std::move(*what), std::move(*content));
}

} // namespace troupe::engine::text
