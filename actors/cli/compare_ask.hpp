#pragma once

#include "actors/cli/client.hpp"
#include "actors/cli/commands.hpp"

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

namespace troupe::cli {

/// Which protocol prompts go through.
enum class compare_api { openai, generate };

/// How a model of one side is asked.
struct compare_model {
  std::string name;
  compare_api api = compare_api::openai;
  /// Of `generate`: the inputs that the model declares, and the one that takes a plain prompt.
  std::vector<std::string> inputs;
  std::string text_input;
};

/// What came of one prompt. Times are in milliseconds since it was asked.
struct compare_answer {
  /// The text, or the outputs as JSON where the model has no text.
  std::string text;
  std::string finish;
  /// Set when it was refused or broke off: the sentence.
  std::string refusal;
  double first_ms = 0;
  double whole_ms = 0;
  /// 0 when the model does not say.
  std::uint64_t tokens = 0;
  /// Arrivals of something.
  std::uint64_t parts = 0;

  [[nodiscard]] bool same(const compare_answer& other) const {
    return text == other.text && finish == other.finish && refusal == other.refusal;
  }
};

/// The prompts of a round: seeded words, others in each round, or the lines of the file.
/// @errors not_found, corrupt_data: the file, by line
[[nodiscard]] result<std::vector<nlohmann::json>> compare_prompts(const compare_options& o,
                                                                  std::uint32_t round);

/// How `wanted`, or else the first model, is asked. `api` "auto" takes OpenAI's where it serves it.
/// @errors not_found; unsupported: generate with inputs that a prompt does not fill
[[nodiscard]] result<compare_model>
find_compare_model(http_client& client, const std::string& wanted, const std::string& api);

/// Asks for a streamed answer. A refusal is an answer.
/// @errors io_failure, corrupt_data: the server is gone, or does not speak the protocol
[[nodiscard]] result<compare_answer> ask_prompt(http_client& client, const compare_model& model,
                                                const nlohmann::json& prompt,
                                                const compare_options& o);

/// The tokens of the answer as text, one by one; nothing where the model does not tell them.
[[nodiscard]] std::vector<std::string> tokens_of_answer(http_client& client,
                                                        const compare_model& model,
                                                        const nlohmann::json& prompt,
                                                        const compare_options& o);

} // namespace troupe::cli
