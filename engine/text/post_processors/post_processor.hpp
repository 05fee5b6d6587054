#pragma once

#include "engine/text/json_view.hpp"
#include "engine/text/part_table.hpp"
#include "troupe/base/ids.hpp"

#include <memory>
#include <vector>

namespace troupe::engine::text {

/// Adds what a model wants around its input: a part of tokenizer.json, immutable once loaded.
class post_processor {
public:
  virtual ~post_processor() = default;

  /// Rewrites `ids`, the tokens of one text. Special tokens are added only where the caller wants
  /// them.
  virtual void apply(std::vector<token_id>& ids, bool add_special_tokens) const = 0;
};

using post_processor_ptr = std::unique_ptr<post_processor>;

/// Builds the post-processor at `at` by the folder's table.
/// @errors as make_part
[[nodiscard]] result<post_processor_ptr> make_post_processor(const json_view& at);

/// The factories of the table's rows; each stands in the file of its name.
[[nodiscard]] result<post_processor_ptr> make_byte_level_post(const json_view& at);
[[nodiscard]] result<post_processor_ptr> make_template_processing(const json_view& at);
[[nodiscard]] result<post_processor_ptr> make_post_processor_sequence(const json_view& at);

} // namespace troupe::engine::text
