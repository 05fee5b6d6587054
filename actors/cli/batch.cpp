#include "actors/cli/batch.hpp"

#include "actors/cli/arguments.hpp"
#include "actors/cli/generation.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

namespace troupe::cli {

namespace {

using json = nlohmann::json;

constexpr int max_tries = 120;
constexpr unsigned max_wait_s = 30;

/// The object under `name`, or an empty one.
json object_in(const json& holder, const char* name) {
  const auto found = holder.find(name);
  return found != holder.end() && found->is_object() ? *found : json::object();
}

} // namespace

job make_job(std::size_t line, const std::string& text, const std::string& model,
             const sampling_options& sampling) {
  job made;
  made.line = line;
  made.problem = check_text(text);
  if (!made.problem.empty())
    return made;
  auto body = json::parse(text, nullptr, false);
  if (!body.is_object()) {
    made.problem = "not a JSON object";
    return made;
  }
  const bool chat = body.contains("messages");
  if (!chat && !body.contains("prompt")) {
    made.problem = "neither \"prompt\" nor \"messages\"";
    return made;
  }
  if (!body.contains("model"))
    body["model"] = model;
  apply(sampling, body);
  body.erase("stream");
  body.erase("stream_options");
  made.path = chat ? "/v1/chat/completions" : "/v1/completions";
  made.body = body.dump(-1, ' ', false, json::error_handler_t::replace);
  return made;
}

outcome run_job(http_client& client, const job& what) {
  outcome out;
  out.line = what.line;
  out.problem = what.problem;
  if (!out.problem.empty())
    return out;
  for (int tries = 1;; ++tries) {
    const auto answer = client.call({.method = "POST", .path = what.path, .body = what.body});
    if (!answer) {
      out.problem = answer.error().note;
      return out;
    }
    const bool again =
        answer->retry_after_s > 0 && (answer->status == 429 || answer->status == 503);
    if (again && tries < max_tries) {
      std::this_thread::sleep_for(
          std::chrono::seconds{std::min(answer->retry_after_s, max_wait_s)});
      continue;
    }
    if (answer->status == 200)
      take_answer(answer->body, out);
    else
      out.problem = message_of(*answer);
    return out;
  }
}

void take_answer(const std::string& text, outcome& out) {
  const auto body = json::parse(text, nullptr, false);
  if (!body.is_object() || !body.contains("choices") || !body["choices"].is_array() ||
      body["choices"].empty() ||
      !std::all_of(body["choices"].begin(), body["choices"].end(),
                   [](const json& choice) { return choice.is_object(); })) {
    out.problem = "the answer is not one of OpenAI's; is this the URL of a Troupe cluster?";
    return;
  }
  for (const auto& choice : body["choices"]) {
    const auto message = object_in(choice, "message");
    const auto piece =
        message.empty() ? choice.value("text", json("")) : message.value("content", json(""));
    out.texts.push_back(piece.is_string() ? piece.get<std::string>() : "");
    const auto finish = choice.value("finish_reason", json(""));
    out.finishes.push_back(finish.is_string() ? finish.get<std::string>() : "");
  }
  const auto counts = object_in(body, "usage");
  const auto count = [&counts](const char* name) {
    const auto found = counts.find(name);
    return found != counts.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
  };
  out.prompt_tokens = count("prompt_tokens");
  out.completion_tokens = count("completion_tokens");
}

std::string to_json_line(const outcome& what) {
  nlohmann::ordered_json line = {{"line", what.line}};
  if (!what.problem.empty()) {
    line["error"] = what.problem;
  } else {
    const bool one = what.texts.size() == 1;
    line[one ? "text" : "texts"] = one ? json(what.texts.front()) : json(what.texts);
    line[one ? "finish_reason" : "finish_reasons"] =
        one ? json(what.finishes.front()) : json(what.finishes);
    line["usage"] = {{"prompt_tokens", what.prompt_tokens},
                     {"completion_tokens", what.completion_tokens}};
  }
  return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

} // namespace troupe::cli
