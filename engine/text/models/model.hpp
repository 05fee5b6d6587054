#pragma once

#include "engine/text/json_view.hpp"
#include "engine/text/models/vocabulary.hpp"
#include "engine/text/part_table.hpp"
#include "engine/text/pre_tokenizers/pre_tokenizer.hpp"

#include <memory>
#include <vector>

namespace troupe::engine::text {

/// Turns pieces of text into tokens: a part of tokenizer.json, immutable once loaded.
class model {
public:
  virtual ~model() = default;

  /// Appends the tokens of every piece of `text` to `ids`.
  [[nodiscard]] virtual result<void> encode(const split_text& text,
                                            std::vector<token_id>& ids) const = 0;

  [[nodiscard]] virtual const vocabulary& tokens() const noexcept = 0;
};

using model_ptr = std::unique_ptr<model>;

/// Builds the model at `at` by the folder's table. A file without "type" that has merges is BPE:
/// so it was before the field existed.
/// @errors as make_part
[[nodiscard]] result<model_ptr> make_model(const json_view& at);

/// The factories of the table's rows; each stands in the file of its name.
[[nodiscard]] result<model_ptr> make_bpe(const json_view& at);

} // namespace troupe::engine::text
