#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "engine/text/jinja/meter.hpp"
#include "troupe/base/error.hpp"

namespace troupe::engine {

/// What a chat template is rendered with: the variables that transformers defines. The JSON is
/// borrowed for the call, and its keys keep their order, which tojson shows to the model.
struct chat_template_input {
  /// Array of messages; required.
  const nlohmann::ordered_json* messages = nullptr;
  /// Arrays of tools and documents; null is the template's `none`.
  const nlohmann::ordered_json* tools = nullptr;
  const nlohmann::ordered_json* documents = nullptr;
  bool add_generation_prompt = true;
  /// Special tokens; those that are absent are undefined in the template.
  std::optional<std::string> bos_token;
  std::optional<std::string> eos_token;
  /// Object of further variables (chat_template_kwargs of a request, other special tokens). They
  /// come last, so a variable of the same name as one above replaces it.
  const nlohmann::ordered_json* extra = nullptr;
  /// Civil time that strftime_now prints. A template that asks without it fails.
  std::optional<std::chrono::local_seconds> now;
};

/// The template that turns a conversation into a prompt: a program in Jinja's language, run by an
/// interpreter whose steps, depth, memory and output are bounded, as the template and the messages
/// may both be hostile. Immutable once parsed; render() may run on many threads at a time.
/// @source Jinja's manual (version 3.1) and transformers' apply_chat_template: trim_blocks and
///         lstrip_blocks set, immutable sandbox, loop controls, its own tojson
class chat_template {
public:
  /// Parses `source`; `name` names it in errors, e.g. the path of its file.
  /// @errors corrupt_data: syntax; unsupported: a tag, filter or test that is not there;
  ///         limit_exceeded: too long or nested too deep. The note is "name:line: what".
  [[nodiscard]] static result<chat_template> parse(std::string source, std::string name,
                                                   const jinja::limits& bounds = {});

  chat_template(chat_template&&) noexcept;
  chat_template& operator=(chat_template&&) noexcept;
  ~chat_template();

  /// The prompt of a conversation.
  /// @errors invalid_argument: the template refuses the conversation (raise_exception: the note is
  ///         its message and nothing else) or fails on it ("name:line: what");
  ///         unsupported: something that is not there is reached; limit_exceeded
  /// @cost   about 0.1 us for each node that is evaluated
  [[nodiscard]] result<std::string> render(const chat_template_input& input) const;

private:
  struct parsed;
  explicit chat_template(std::unique_ptr<const parsed> p);
  std::unique_ptr<const parsed> parsed_;
};

} // namespace troupe::engine
