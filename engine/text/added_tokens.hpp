#pragma once

#include "engine/text/json_view.hpp"
#include "engine/text/models/vocabulary.hpp"
#include "engine/text/normalizers/normalizer.hpp"

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace troupe::engine::text {

/// A token that is found in the text as it stands, before the model sees it.
struct added_token {
  token_id id = -1;
  std::string content;
  /// Left out of decoded text on request.
  bool special = false;
  /// Found in the normalized text instead of the text as given.
  bool normalized = false;
  /// Takes the white space before or behind it with it.
  bool lstrip = false;
  bool rstrip = false;
  /// Not found inside a word.
  bool single_word = false;
};

/// A part of a text: an added token, or text for the model.
struct text_segment {
  std::string_view text;
  /// The added token, or -1.
  token_id id = -1;
};

/// The added tokens of a tokenizer, with the search for them: leftmost, and of these the longest.
class added_tokens {
public:
  /// Reads the array "added_tokens".
  /// @errors invalid_argument: an element of another form, a content longer than 512 bytes;
  ///         conflict: an id that belongs to another token
  [[nodiscard]] static result<added_tokens> load(const json_view& at, const vocabulary& tokens,
                                                 const normalizer* normalize);

  /// Cuts `text` at the tokens that are found in text as given.
  void split_given(std::string_view text, std::vector<text_segment>& segments) const {
    split(given_, text, segments);
  }
  /// Cuts `text` at the tokens that are found in normalized text.
  void split_normalized(std::string_view text, std::vector<text_segment>& segments) const {
    split(normalized_, text, segments);
  }

  [[nodiscard]] const added_token* find(token_id id) const noexcept;
  [[nodiscard]] const added_token* find(std::string_view content) const noexcept;
  [[nodiscard]] bool is_special(token_id id) const noexcept;
  /// One more than the largest id; 0 without any.
  [[nodiscard]] std::size_t id_end() const noexcept { return id_end_; }

private:
  /// A tree of bytes.
  struct search_tree {
    /// The child of node n by byte b, under n * 256 + b; the root is node 0.
    std::unordered_map<std::uint64_t, std::uint32_t> children;
    /// The index in list_ of the token that ends at a node, or -1.
    std::vector<std::int32_t> ends{-1};
    std::array<bool, 256> starts{};

    [[nodiscard]] bool insert(std::string_view text, std::int32_t token);
  };

  struct found_token {
    std::size_t end = 0;
    std::int32_t token = -1;
  };

  [[nodiscard]] static found_token longest_at(const search_tree& tree, std::string_view text,
                                              std::size_t at);
  void split(const search_tree& tree, std::string_view text,
             std::vector<text_segment>& segments) const;
  [[nodiscard]] result<void> add(const json_view& at, added_token token, const vocabulary& tokens);
  [[nodiscard]] result<void> build_trees(const json_view& at, const normalizer* normalize);

  std::vector<added_token> list_;
  std::unordered_map<token_id, std::size_t> by_id_;
  std::unordered_map<std::string, std::size_t> by_content_;
  search_tree given_;
  search_tree normalized_;
  std::size_t id_end_ = 0;
};

} // namespace troupe::engine::text
