#pragma once

#include "troupe/base/error.hpp"

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace troupe::engine::text {

/// What Troupe reads of a model's tokenizer_config.json.
struct tokenizer_config {
  /// Nothing where the file does not say: the tokenizer's post-processor decides then.
  std::optional<bool> add_bos_token;
  std::optional<bool> add_eos_token;
  std::optional<std::string> bos_token;
  std::optional<std::string> eos_token;
  std::optional<std::string> pad_token;
  std::optional<std::string> unk_token;
  /// The chat template to use: that of chat_template.jinja, or the file's own; of several the one
  /// that is named "default".
  std::optional<std::string> chat_template;
  /// Where chat_template was read: "chat_template.jinja" or "tokenizer_config.json:
  /// $.chat_template", with the directory; for messages.
  std::string chat_template_origin;
  /// All templates of a file that names several, "default" among them.
  std::map<std::string, std::string, std::less<>> named_templates;

  friend bool operator==(const tokenizer_config&, const tokenizer_config&) = default;
};

/// Reads tokenizer_config.json and chat_template.jinja in `model_directory`. Neither has to exist;
/// chat_template.jinja wins over a template in the other file.
/// @errors corrupt_data: a file is no JSON or no UTF-8; invalid_argument: a field has a wrong type;
///         io_failure, limit_exceeded: a file cannot be read or has more than 16 MiB
[[nodiscard]] result<tokenizer_config>
load_tokenizer_config(const std::filesystem::path& model_directory);

} // namespace troupe::engine::text
