#pragma once

#include "engine/text/json_view.hpp"
#include "engine/text/part_table.hpp"
#include "engine/text/regex.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::engine::text {

/// A text and the pieces of it that the model will see, in order. Bytes that no piece covers are
/// gone. No piece is empty.
struct split_text {
  std::string text;
  std::vector<byte_range> pieces;

  [[nodiscard]] std::string_view view(const byte_range& piece) const {
    return std::string_view{text}.substr(piece.begin, piece.end - piece.begin);
  }
};

/// Splits text into the pieces over whose ends no token reaches: a part of tokenizer.json,
/// immutable once loaded.
class pre_tokenizer {
public:
  virtual ~pre_tokenizer() = default;

  /// Splits the pieces of `text` further, and may rewrite them.
  /// @errors limit_exceeded: a pattern costs more than its bound
  [[nodiscard]] virtual result<void> split(split_text& text) const = 0;
};

using pre_tokenizer_ptr = std::unique_ptr<pre_tokenizer>;

/// Builds the pre-tokenizer at `at` by the folder's table.
/// @errors as make_part
[[nodiscard]] result<pre_tokenizer_ptr> make_pre_tokenizer(const json_view& at);

/// The factories of the table's rows; each stands in the file of its name.
[[nodiscard]] result<pre_tokenizer_ptr> make_byte_level(const json_view& at);
[[nodiscard]] result<pre_tokenizer_ptr> make_digits(const json_view& at);
[[nodiscard]] result<pre_tokenizer_ptr> make_split(const json_view& at);
[[nodiscard]] result<pre_tokenizer_ptr> make_pre_tokenizer_sequence(const json_view& at);

} // namespace troupe::engine::text
