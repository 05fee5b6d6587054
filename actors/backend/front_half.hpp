#pragma once

#include "engine/text/chat_template.hpp"
#include "engine/text/tokenizer.hpp"
#include "engine/text/tokenizer_config.hpp"
#include "troupe/actors/inference.hpp"
#include "troupe/base/error.hpp"
#include "troupe/base/prng.hpp"
#include "troupe/config/model.hpp"

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace troupe::actors {

/// The front half of a model: what stands between text and token ids. Immutable once loaded.
class front_half {
public:
  /// Reads tokenizer and chat template of `model`.
  /// @errors what reading them says: not_found, corrupt_data, unsupported
  [[nodiscard]] static result<std::shared_ptr<const front_half>>
  load(const config::model_config& model);

  /// Turns a request into a submission: renders the template, encodes, fills in what was not said
  /// (request > generation_config.json > vLLM's defaults), and checks every range.
  /// @errors invalid_argument: a value out of range, a template that refuses; unsupported: a chat
  /// for a model without
  ///         a template; limit_exceeded: prompt and answer do not fit the context (both numbers are
  ///         said)
  [[nodiscard]] result<engine::submission> prepare(const inference_request& request,
                                                   std::uint64_t fresh_seed) const;

  [[nodiscard]] const engine::text::tokenizer& tokenizer() const noexcept { return *tokenizer_; }

private:
  [[nodiscard]] result<std::vector<token_id>> prompt_of(const inference_request& request) const;
  [[nodiscard]] result<std::vector<token_id>> encode(const std::string& text,
                                                     bool add_special_tokens) const;
  [[nodiscard]] result<std::string> render(const inference_request& request) const;
  [[nodiscard]] result<void> load_template(const std::filesystem::path& folder);
  [[nodiscard]] result<engine::sampling_params> sampling_of(const inference_request& request,
                                                            std::uint32_t room) const;

  config::model_config model_;
  std::shared_ptr<const engine::text::tokenizer> tokenizer_;
  std::optional<engine::chat_template> template_;
  std::optional<std::string> bos_token_;
  std::optional<std::string> eos_token_;
  std::uint32_t max_model_len_ = 0;
  /// Bytes of the longest token.
  std::size_t longest_token_ = 1;
};

} // namespace troupe::actors
