#include "actors/cli/compare_ask.hpp"

#include "actors/cli/generation.hpp"
#include "troupe/base/prng.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>
#include <iterator>
#include <utility>

namespace troupe::cli {

namespace {

using nlohmann::json;
using steady = std::chrono::steady_clock;

/// Plain words that every tokenizer knows.
constexpr std::array<std::string_view, 32> words{
    "the",  "king", "night", "river", "of",   "and",   "house", "speaks", "with", "bright", "old",
    "to",   "love", "who",   "comes", "over", "sea",   "when",  "a",      "hand", "light",  "stone",
    "what", "in",   "city",  "horse", "will", "sword", "queen", "friend", "from", "garden"};

json sentence(const compare_options& o, std::uint32_t round, std::uint32_t index) {
  std::string text;
  for (std::uint32_t i = 0; i < o.words; ++i) {
    const auto drawn =
        philox4x32({i, index, round, 0},
                   {static_cast<std::uint32_t>(o.seed), static_cast<std::uint32_t>(o.seed >> 32U)});
    text += (i == 0 ? "" : " ");
    text += words[drawn[0] % words.size()];
  }
  return text;
}

result<std::vector<json>> lines_of(const std::filesystem::path& file) {
  std::ifstream in{file};
  if (!in)
    return fail(errc::not_found, fmt::format("cannot read {}", file.string()));
  std::vector<json> all;
  std::string line;
  for (std::size_t number = 1; std::getline(in, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos)
      continue;
    auto value = json::parse(line, nullptr, false);
    if (!value.is_object() && !value.is_string())
      return fail(errc::corrupt_data,
                  fmt::format("{}, line {}: a JSON string or a JSON object is needed",
                              file.string(), number));
    all.push_back(std::move(value));
  }
  if (all.empty())
    return fail(errc::corrupt_data, fmt::format("{} has no prompts", file.string()));
  return all;
}

bool declares(const compare_model& model, std::string_view input) {
  return std::find(model.inputs.begin(), model.inputs.end(), input) != model.inputs.end();
}

/// What the engine's models take. Fields that the prompt has stay.
void complete(json& body, const compare_options& o) {
  const json given{{"max_tokens", o.max_tokens}, {"temperature", 0}, {"seed", o.seed}};
  for (const auto& [name, value] : given.items())
    if (!body.contains(name))
      body[name] = value;
}

json openai_body(const compare_model& model, const json& prompt, const compare_options& o) {
  json body = prompt.is_string() ? json{{"prompt", prompt}} : prompt;
  complete(body, o);
  body["model"] = model.name;
  return body;
}

json generate_body(const compare_model& model, const json& prompt, const compare_options& o) {
  json body = prompt.is_string() ? json{{model.text_input, prompt}} : prompt;
  // Whoever declares this input has the engine's others too.
  if (!declares(model, "sampling_parameters"))
    return body;
  if (!body.contains("sampling_parameters"))
    complete(body, o);
  body["stream"] = true;
  body["exclude_input_in_output"] = true;
  body["return_num_output_tokens"] = true;
  body["return_finish_reason"] = true;
  return body;
}

std::string text_of_choice(const json& choice) {
  const auto delta = choice.find("delta");
  const json& holder = delta != choice.end() && delta->is_object() ? *delta : choice;
  for (const auto* name : {"content", "text"})
    if (holder.contains(name) && holder[name].is_string())
      return holder[name].get<std::string>();
  return {};
}

/// Reads the events of an answer as they come.
class reader {
public:
  explicit reader(compare_api api) : api_{api}, begin_{steady::now()} {}

  void take(std::string_view data) {
    const auto now = std::chrono::duration<double, std::milli>(steady::now() - begin_).count();
    const auto event = json::parse(data.begin(), data.end(), nullptr, false);
    if (!event.is_object())
      return;
    if (event.contains("error")) {
      http_answer whole;
      whole.body = std::string{data};
      made_.refusal =
          event["error"].is_string() ? event["error"].get<std::string>() : message_of(whole);
      return;
    }
    const bool said = api_ == compare_api::openai ? take_choice(event) : take_outputs(event);
    if (!said)
      return;
    if (made_.parts++ == 0)
      made_.first_ms = now;
    made_.whole_ms = now;
  }

  [[nodiscard]] compare_answer finish() { return std::move(made_); }
  void refuse(std::string why) { made_.refusal = std::move(why); }

private:
  bool take_choice(const json& event) {
    const auto usage = event.find("usage");
    if (usage != event.end() && usage->is_object())
      made_.tokens = usage->value("completion_tokens", std::uint64_t{0});
    const auto choices = event.find("choices");
    if (choices == event.end() || !choices->is_array() || choices->empty() ||
        !choices->front().is_object())
      return false;
    const auto& choice = choices->front();
    made_.text += text_of_choice(choice);
    if (choice.contains("finish_reason") && choice["finish_reason"].is_string())
      made_.finish = choice["finish_reason"].get<std::string>();
    // The first event of a chat says the role alone.
    const auto delta = choice.find("delta");
    return delta == choice.end() || !delta->contains("role") || !text_of_choice(choice).empty();
  }

  bool take_outputs(json event) {
    for (const auto* name : {"model_name", "model_version", "id"})
      event.erase(name);
    const auto count = event.find("num_output_tokens");
    if (count != event.end() && count->is_number_unsigned())
      made_.tokens += count->get<std::uint64_t>();
    const auto why = event.find("finish_reason");
    if (why != event.end() && why->is_string())
      made_.finish = why->get<std::string>();
    event.erase("num_output_tokens");
    event.erase("finish_reason");
    const auto text = event.find("text_output");
    if (event.size() == 1 && text != event.end() && text->is_string())
      made_.text += text->get<std::string>();
    else if (!event.empty())
      made_.text += event.dump();
    return true;
  }

  compare_api api_;
  steady::time_point begin_;
  compare_answer made_;
};

std::string path_of(const compare_model& model, const json& body) {
  if (model.api == compare_api::generate)
    return "/v2/models/" + model.name + "/generate_stream";
  return body.contains("messages") ? "/v1/chat/completions" : "/v1/completions";
}

/// KServe's description of a model, or nothing.
json metadata_of(http_client& client, const std::string& name) {
  const auto path = "/v2/models/" + name;
  const auto answer = client.call({.path = path});
  return answer && answer->status == 200 ? json::parse(answer->body, nullptr, false) : json{};
}

/// Whether a model has the inputs of the engine's.
bool takes_text(const json& about) {
  if (!about.is_object() || !about.contains("inputs"))
    return false;
  const auto& inputs = about["inputs"];
  return std::any_of(inputs.begin(), inputs.end(), [](const json& input) {
    return input.value("name", "") == "sampling_parameters";
  });
}

/// The first model of the repository that is ready; OpenAI's list has those of the engine alone.
std::string first_ready(http_client& client) {
  const auto answer =
      client.call({.method = "POST", .path = "/v2/repository/index", .body = R"({"ready": true})"});
  const auto all = answer ? json::parse(answer->body, nullptr, false) : json{};
  if (all.is_array() && !all.empty() && all.front().is_object())
    return all.front().value("name", "");
  return {};
}

result<compare_model> generate_model(http_client& client, const std::string& wanted) {
  compare_model made{.name = wanted.empty() ? first_ready(client) : wanted,
                     .api = compare_api::generate,
                     .inputs = {},
                     .text_input = {}};
  const auto about = metadata_of(client, made.name);
  if (!about.is_object() || !about.contains("inputs"))
    return fail(errc::not_found, fmt::format("there is no model '{}' that is ready", made.name));
  std::vector<std::string> texts;
  for (const auto& input : about["inputs"]) {
    made.inputs.push_back(input.value("name", ""));
    if (input.value("datatype", "") == "BYTES")
      texts.push_back(made.inputs.back());
  }
  if (declares(made, "text_input"))
    made.text_input = "text_input";
  else if (texts.size() == 1)
    made.text_input = texts.front();
  return made;
}

/// The list of tokens in the log-probabilities of a choice of completions or chat.
std::vector<std::string> tokens_in(const json& choice) {
  std::vector<std::string> all;
  const auto about = choice.value("logprobs", json::object());
  const auto list = about.is_object() ? about.value("tokens", json::array()) : json::array();
  for (const auto& token : list)
    if (token.is_string())
      all.push_back(token.get<std::string>());
  const auto chat = about.is_object() ? about.value("content", json::array()) : json::array();
  for (const auto& one : chat)
    if (one.is_object())
      all.push_back(one.value("token", ""));
  return all;
}

} // namespace

result<std::vector<json>> compare_prompts(const compare_options& o, std::uint32_t round) {
  if (!o.prompts_file.empty())
    return lines_of(o.prompts_file);
  std::vector<json> all;
  for (std::uint32_t i = 0; i < o.prompts; ++i)
    all.push_back(sentence(o, round, i));
  return all;
}

result<compare_model> find_compare_model(http_client& client, const std::string& wanted,
                                         const std::string& api) {
  if (api != "generate") {
    // The list has models of tensors too, which these APIs do not take.
    if (auto name = choose_model(client, wanted); name && takes_text(metadata_of(client, *name)))
      return compare_model{
          .name = *name, .api = compare_api::openai, .inputs = {}, .text_input = {}};
    if (api == "openai")
      return fail(errc::not_found, fmt::format("OpenAI's API serves no model '{}' there; --api "
                                               "generate asks models of any backend",
                                               wanted));
  }
  return generate_model(client, wanted);
}

result<compare_answer> ask_prompt(http_client& client, const compare_model& model,
                                  const json& prompt, const compare_options& o) {
  if (prompt.is_string() && model.api == compare_api::generate && model.text_input.empty())
    return fail(
        errc::unsupported,
        fmt::format("model '{}' has the inputs {}, and a prompt is one text; give bodies of "
                    "generate with --prompts-file",
                    model.name, fmt::join(model.inputs, ", ")));
  json body = model.api == compare_api::openai ? openai_body(model, prompt, o)
                                               : generate_body(model, prompt, o);
  if (model.api == compare_api::openai) {
    body["stream"] = true;
    body["stream_options"] = {{"include_usage", true}};
  }
  const auto path = path_of(model, body);
  const auto text = body.dump();
  reader made{model.api};
  event_reader events{[&](std::string_view data) { made.take(data); }};
  const auto answer = client.call(
      {.method = "POST", .path = path, .body = text, .on_bytes = [&](std::string_view bytes) {
         events.feed(bytes);
       }});
  if (!answer)
    return fail(answer.error());
  if (answer->status != 200)
    made.refuse(fmt::format("{}: {}", answer->status, message_of(*answer)));
  return made.finish();
}

std::vector<std::string> tokens_of_answer(http_client& client, const compare_model& model,
                                          const json& prompt, const compare_options& o) {
  if (model.api != compare_api::openai)
    return {};
  json body = openai_body(model, prompt, o);
  body["stream"] = false;
  body.erase("stream_options");
  if (body.contains("messages"))
    body["logprobs"] = true;
  else
    body["logprobs"] = 0;
  const auto path = path_of(model, body);
  const auto text = body.dump();
  const auto answer = client.call({.method = "POST", .path = path, .body = text});
  const auto whole =
      answer && answer->status == 200 ? json::parse(answer->body, nullptr, false) : json{};
  if (!whole.is_object() || !whole.contains("choices") || whole["choices"].empty())
    return {};
  return tokens_in(whole["choices"].front());
}

} // namespace troupe::cli
