#pragma once

#include "engine/text/json_view.hpp"
#include "engine/text/part_table.hpp"

#include <memory>
#include <string>

namespace troupe::engine::text {

/// Rewrites the text before it is split: a part of tokenizer.json, immutable once loaded.
class normalizer {
public:
  virtual ~normalizer() = default;

  /// Rewrites `text`, which is valid UTF-8 before and after.
  /// @errors limit_exceeded: the text grows or costs beyond its bound
  [[nodiscard]] virtual result<void> apply(std::string& text) const = 0;
};

using normalizer_ptr = std::unique_ptr<normalizer>;

/// Builds the normalizer at `at` by the folder's table.
/// @errors as make_part
[[nodiscard]] result<normalizer_ptr> make_normalizer(const json_view& at);

/// The factories of the table's rows; each stands in the file of its name.
[[nodiscard]] result<normalizer_ptr> make_nfc(const json_view& at);
[[nodiscard]] result<normalizer_ptr> make_nfd(const json_view& at);
[[nodiscard]] result<normalizer_ptr> make_nfkc(const json_view& at);
[[nodiscard]] result<normalizer_ptr> make_nfkd(const json_view& at);
[[nodiscard]] result<normalizer_ptr> make_lowercase(const json_view& at);
[[nodiscard]] result<normalizer_ptr> make_prepend(const json_view& at);
[[nodiscard]] result<normalizer_ptr> make_replace_normalizer(const json_view& at);
[[nodiscard]] result<normalizer_ptr> make_strip_normalizer(const json_view& at);
[[nodiscard]] result<normalizer_ptr> make_normalizer_sequence(const json_view& at);

} // namespace troupe::engine::text
