#include "engine/text/byte_alphabet.hpp"
#include "engine/text/pre_tokenizers/delimiters.hpp"
#include "engine/text/pre_tokenizers/pre_tokenizer.hpp"

#include <optional>
#include <utility>

namespace troupe::engine::text {

namespace {

/// GPT-2's own pattern, for files that do not bring one.
constexpr std::string_view gpt2_pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// Writes the text in GPT-2's byte alphabet, optionally split by GPT-2's pattern first.
class byte_level final : public pre_tokenizer {
public:
  byte_level(bool add_prefix_space, std::optional<regex> words)
      : add_prefix_space_{add_prefix_space}, words_{std::move(words)} {}

  result<void> split(split_text& text) const override {
    split_text mapped;
    mapped.text.reserve(text.text.size() + text.text.size() / 2);
    std::string spaced;
    for (const byte_range& piece : text.pieces) {
      std::string_view view = text.view(piece);
      if (add_prefix_space_ && !view.starts_with(' ')) {
        spaced.assign(1, ' ').append(view);
        view = spaced;
      }
      if (auto done = append(view, mapped); !done)
        return done;
    }
    text = std::move(mapped);
    return {};
  }

private:
  result<void> append(std::string_view view, split_text& mapped) const {
    if (!words_) {
      append_piece(view, mapped);
      return {};
    }
    const auto matches = words_->find_all(view);
    if (!matches)
      return fail(matches.error());
    for (const byte_range& word :
         split_at({0, view.size()}, *matches, split_behavior::isolated, false))
      append_piece(view.substr(word.begin, word.end - word.begin), mapped);
    return {};
  }

  static void append_piece(std::string_view bytes, split_text& mapped) {
    const std::size_t begin = mapped.text.size();
    for (const char byte : bytes)
      mapped.text += byte_character(static_cast<unsigned char>(byte));
    mapped.pieces.push_back({begin, mapped.text.size()});
  }

  bool add_prefix_space_;
  std::optional<regex> words_;
};

} // namespace

result<pre_tokenizer_ptr> make_byte_level(const json_view& at) {
  const auto add_prefix_space = at.flag("add_prefix_space", true);
  if (!add_prefix_space)
    return fail(add_prefix_space.error());
  const auto use_regex = at.flag("use_regex", true);
  if (!use_regex)
    return fail(use_regex.error());
  std::optional<regex> words;
  if (*use_regex) {
    auto compiled = regex::compile(gpt2_pattern);
    if (!compiled)
      return fail(compiled.error());
    words = std::move(*compiled);
  }
  return std::make_unique<byte_level>(*add_prefix_space, std::move(words));
}

} // namespace troupe::engine::text
