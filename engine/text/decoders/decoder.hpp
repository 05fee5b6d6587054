#pragma once

#include "engine/text/json_view.hpp"
#include "engine/text/part_table.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::engine::text {

/// A stretch of one token's text on its way through the decoders. A decoder that joins tokens makes
/// one long token out of them, of which the end is not known until the stream ends; hence the
/// marks.
struct fragment {
  std::string_view text;
  bool begins_token = true;
  bool ends_token = true;
};

/// Fragments that one stage hands to the next.
class fragments {
public:
  void add(std::string_view text, bool begins_token, bool ends_token) {
    ends_.push_back({text_.size() + text.size(), begins_token, ends_token});
    text_ += text;
  }
  void clear() noexcept {
    text_.clear();
    ends_.clear();
  }
  [[nodiscard]] std::size_t size() const noexcept { return ends_.size(); }
  [[nodiscard]] fragment operator[](std::size_t i) const {
    const std::size_t begin = i == 0 ? 0 : ends_[i - 1].end;
    return {std::string_view{text_}.substr(begin, ends_[i].end - begin), ends_[i].begins_token,
            ends_[i].ends_token};
  }
  /// All texts, joined.
  [[nodiscard]] const std::string& text() const noexcept { return text_; }

private:
  struct mark {
    std::size_t end;
    bool begins_token;
    bool ends_token;
  };

  std::string text_;
  std::vector<mark> ends_;
};

/// What a decoder remembers between tokens. Plain values, so that a stream can move between
/// processes; what they mean is the decoder's business.
struct decoder_state {
  std::string held;
  std::string bytes;
  std::uint64_t count = 0;

  friend bool operator==(const decoder_state&, const decoder_state&) = default;
};

/// Turns the texts of tokens back into text, as a stream: a part of tokenizer.json, immutable once
/// loaded. What comes out for a stream is what tokenizers makes of all its tokens at once.
class decoder {
public:
  virtual ~decoder() = default;

  /// Takes the next fragment and appends to `out` what is certain by now.
  virtual void push(decoder_state& state, const fragment& next, fragments& out) const = 0;

  /// The stream has ended: appends what was held back.
  virtual void finish(decoder_state& state, fragments& out) const = 0;
};

using decoder_ptr = std::unique_ptr<decoder>;

/// Builds the decoder at `at` by the folder's table. A "Sequence" is no decoder but several stages;
/// without a decoder (`at` is nullptr) tokens are joined by spaces.
/// @errors as make_part
[[nodiscard]] result<std::vector<decoder_ptr>> make_decoders(const json_view* at);

/// The factories of the table's rows; each stands in the file of its name.
[[nodiscard]] result<decoder_ptr> make_byte_level_decoder(const json_view& at);
[[nodiscard]] result<decoder_ptr> make_byte_fallback(const json_view& at);
[[nodiscard]] result<decoder_ptr> make_fuse(const json_view& at);
[[nodiscard]] result<decoder_ptr> make_replace_decoder(const json_view& at);
[[nodiscard]] result<decoder_ptr> make_strip_decoder(const json_view& at);
/// What decodes where a file names no decoder.
[[nodiscard]] decoder_ptr make_join();

} // namespace troupe::engine::text
