#include "engine/text/decoders/decoder.hpp"
#include "engine/text/utf8.hpp"

#include <algorithm>
#include <utility>

namespace troupe::engine::text {

namespace {

/// The most characters that a file may ask to strip; those at the end are held back.
constexpr std::uint64_t max_stripped = 1024;

/// Cuts a character off the start and the end of every token, a number of times at most.
/// In the state, `count` is two numbers: what may still be cut off the start, and whether the start
/// has been passed on (the lowest bit).
class strip final : public decoder {
public:
  strip(std::string content, std::uint64_t start, std::uint64_t stop)
      : content_{std::move(content)}, start_{start}, stop_{stop} {}

  void push(decoder_state& state, const fragment& next, fragments& out) const override {
    if (next.begins_token)
      state.count = start_ * 2;
    std::string text = std::exchange(state.held, {});
    text += cut_start(state, next.text);
    std::size_t kept = trailing(text);
    if (next.ends_token)
      text.resize(text.size() - kept);
    else
      state.held = std::string_view{text}.substr(text.size() - kept);
    const std::string_view certain =
        std::string_view{text}.substr(0, text.size() - state.held.size());
    if (certain.empty() && !next.ends_token)
      return;
    out.add(certain, (state.count & 1U) == 0, next.ends_token);
    state.count |= 1U;
  }

  void finish(decoder_state& state, fragments& out) const override {
    if (!state.held.empty())
      out.add(state.held, (state.count & 1U) == 0, true);
    state = {};
  }

private:
  [[nodiscard]] std::string_view cut_start(decoder_state& state, std::string_view text) const {
    while (state.count >= 2 && !text.empty()) {
      if (!text.starts_with(content_)) {
        state.count &= 1U;
        break;
      }
      text.remove_prefix(content_.size());
      state.count -= 2;
    }
    return text;
  }

  /// How many bytes at the end of `text` would be cut if the token ended there.
  [[nodiscard]] std::size_t trailing(std::string_view text) const {
    std::size_t bytes = 0;
    for (std::uint64_t i = 0; i < stop_ && text.ends_with(content_); ++i) {
      text.remove_suffix(content_.size());
      bytes += content_.size();
    }
    return bytes;
  }

  std::string content_;
  std::uint64_t start_;
  std::uint64_t stop_;
};

} // namespace

result<decoder_ptr> make_strip_decoder(const json_view& at) {
  auto content = at.text("content");
  if (!content)
    return fail(content.error());
  if (content->empty() || decode_utf8(*content).bytes != content->size())
    return at.refuse(errc::invalid_argument, "content must be one character");
  std::uint64_t counts[2] = {0, 0};
  for (int i = 0; i < 2; ++i) {
    const auto member = at.child(i == 0 ? "start" : "stop");
    if (!member)
      return fail(member.error());
    const auto count = member->natural(max_stripped);
    if (!count)
      return fail(count.error());
    counts[i] = *count;
  }
  return std::make_unique<strip>(std::move(*content), counts[0], counts[1]);
}

} // namespace troupe::engine::text
