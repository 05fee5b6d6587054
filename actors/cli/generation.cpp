#include "actors/cli/generation.hpp"

#include "actors/cli/config_file.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <optional>
#include <utility>

namespace troupe::cli {

namespace {

using nlohmann::json;

template <class T>
void put(json& body, const char* name, const std::optional<T>& value) {
  if (value && !body.contains(name))
    body[name] = *value;
}

/// The text of a chunk: of a chat's delta or of a completion.
std::string text_of(const json& choice) {
  const auto delta = choice.find("delta");
  const auto& holder = delta != choice.end() && delta->is_object() ? *delta : choice;
  for (const auto* name : {"content", "text"})
    if (holder.contains(name) && holder[name].is_string())
      return holder[name].get<std::string>();
  return {};
}

/// What one event adds to a streamed answer.
void take_event(std::string_view data, streamed& so_far, std::string& problem,
                const std::function<void(std::string_view)>& on_text) {
  const auto event = json::parse(data.begin(), data.end(), nullptr, false);
  if (!event.is_object())
    return;
  if (event.contains("error")) {
    http_answer as_answer;
    as_answer.body = std::string{data};
    problem = message_of(as_answer);
    return;
  }
  const auto choices = event.find("choices");
  if (choices == event.end() || !choices->is_array() || choices->empty() ||
      !(*choices)[0].is_object())
    return;
  const auto& choice = (*choices)[0];
  const auto text = text_of(choice);
  if (!text.empty())
    on_text(text);
  so_far.text += text;
  if (choice.contains("finish_reason") && choice["finish_reason"].is_string())
    so_far.finish = choice["finish_reason"].get<std::string>();
}

errc meaning_of(const http_answer& answer) {
  if (answer.status == 429)
    return errc::busy;
  const auto body = json::parse(answer.body, nullptr, false);
  const bool too_long = body.is_object() && body.contains("error") && body["error"].is_object() &&
                        body["error"].value("code", json{}) == json("context_length_exceeded");
  return too_long ? errc::limit_exceeded : errc::invalid_argument;
}

} // namespace

event_reader::event_reader(std::function<void(std::string_view)> on_data)
    : on_data_{std::move(on_data)} {}

void event_reader::feed(std::string_view bytes) {
  constexpr std::string_view mark = "data:";
  for (const char c : bytes) {
    if (c != '\n') {
      line_ += c;
      continue;
    }
    std::string_view line = line_;
    if (!line.empty() && line.back() == '\r')
      line.remove_suffix(1);
    if (line.substr(0, mark.size()) == mark) {
      line.remove_prefix(mark.size());
      if (!line.empty() && line.front() == ' ')
        line.remove_prefix(1);
      on_data_(line);
    }
    line_.clear();
  }
}

void apply(const sampling_options& o, json& body) {
  put(body, "temperature", o.temperature);
  put(body, "top_p", o.top_p);
  put(body, "top_k", o.top_k);
  put(body, "seed", o.seed);
  put(body, "max_tokens", o.max_tokens);
}

result<http_client> open_client(const client_options& o) {
  auto url = parse_url(o.url);
  if (!url)
    return fail(url.error());
  return http_client{std::move(*url), o.api_key.empty() ? environment_api_key() : o.api_key};
}

result<streamed> stream_answer(http_client& client, json body,
                               const std::function<void(std::string_view)>& on_text,
                               const std::function<bool()>& stop) {
  streamed so_far;
  std::string problem;
  event_reader events{[&](std::string_view data) { take_event(data, so_far, problem, on_text); }};
  const bool chat = body.contains("messages");
  body["stream"] = true;
  const auto text = body.dump(-1, ' ', false, json::error_handler_t::replace);
  const auto answer = client.call({.method = "POST",
                                   .path = chat ? "/v1/chat/completions" : "/v1/completions",
                                   .body = text,
                                   .on_bytes = [&](std::string_view bytes) { events.feed(bytes); },
                                   .stop = stop});
  if (!answer)
    return fail(answer.error());
  if (answer->status != 200)
    return fail(meaning_of(*answer), message_of(*answer));
  if (!problem.empty())
    return fail(errc::internal, problem);
  return so_far;
}

} // namespace troupe::cli
