#include "actors/edge/openai_response.hpp"

#include "actors/edge/logprobs_json.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <iterator>
#include <utility>

namespace troupe::actors {

namespace {

using json = nlohmann::ordered_json;

std::string text_of(const json& j) {
  return j.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string event_of(const json& j) { return "data: " + text_of(j) + "\n\n"; }

json usage_json(const usage& u) {
  return {{"prompt_tokens", u.prompt_tokens},
          {"completion_tokens", u.completion_tokens},
          {"total_tokens", u.prompt_tokens + u.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", u.cached_tokens}}}};
}

json finish_json(const response_part& part) {
  if (part.finish == engine::finish_reason::none)
    return nullptr;
  return engine::to_string(part.finish);
}

/// vLLM's stop_reason: the string or token that ended the answer, null for eos.
json stop_reason(const response_part& part) {
  if (part.stop_string)
    return *part.stop_string;
  if (part.stop_token)
    return *part.stop_token;
  return nullptr;
}

json logprobs_json(const answer_head& head, const response_part& part) {
  if (!head.logprobs)
    return nullptr;
  return head.chat ? chat_logprobs(part.likelihoods) : completion_logprobs(part.likelihoods);
}

json frame(const answer_head& head, const char* object) {
  return {{"id", head.id}, {"object", object}, {"created", head.created}, {"model", head.model}};
}

json chunk_frame(const answer_head& head) {
  return frame(head, head.chat ? "chat.completion.chunk" : "text_completion");
}

} // namespace

std::string stream_event(const answer_head& head, std::size_t index, const response_part& part,
                         bool first) {
  json choice = {{"index", index}};
  if (head.chat) {
    json delta = json::object();
    if (first)
      delta["role"] = "assistant";
    if (first || !part.text.empty())
      delta["content"] = part.text;
    choice["delta"] = std::move(delta);
  } else {
    choice["text"] = part.text;
  }
  choice["logprobs"] = logprobs_json(head, part);
  choice["finish_reason"] = finish_json(part);
  choice["stop_reason"] = stop_reason(part);
  auto chunk = chunk_frame(head);
  chunk["choices"] = json::array({std::move(choice)});
  if (head.null_usage)
    chunk["usage"] = nullptr;
  return event_of(chunk);
}

std::string usage_event(const answer_head& head, const usage& counts) {
  auto chunk = chunk_frame(head);
  chunk["choices"] = json::array();
  chunk["usage"] = usage_json(counts);
  return event_of(chunk);
}

std::string error_event(const api_error& e) { return "data: " + to_json(e) + "\n\n"; }

std::string done_event() { return "data: [DONE]\n\n"; }

std::string full_answer(const answer_head& head, const std::vector<response_part>& choices) {
  auto answer = frame(head, head.chat ? "chat.completion" : "text_completion");
  answer["choices"] = json::array();
  for (std::size_t i = 0; i < choices.size(); ++i) {
    json choice = {{"index", i}};
    if (head.chat)
      choice["message"] = {
          {"role", "assistant"}, {"content", choices[i].text}, {"refusal", nullptr}};
    else
      choice["text"] = choices[i].text;
    choice["logprobs"] = logprobs_json(head, choices[i]);
    choice["finish_reason"] = finish_json(choices[i]);
    choice["stop_reason"] = stop_reason(choices[i]);
    answer["choices"].push_back(std::move(choice));
  }
  answer["usage"] = usage_json(total_usage(choices));
  return text_of(answer);
}

usage total_usage(const std::vector<response_part>& choices) {
  usage sum;
  for (const auto& c : choices) {
    sum.prompt_tokens += c.counts.prompt_tokens;
    sum.completion_tokens += c.counts.completion_tokens;
    sum.cached_tokens += c.counts.cached_tokens;
  }
  return sum;
}

void merge(response_part& part, response_part next) {
  part.text += next.text;
  part.tokens += next.tokens;
  std::move(next.likelihoods.begin(), next.likelihoods.end(), std::back_inserter(part.likelihoods));
  part.cumulative_logprob = next.cumulative_logprob;
  std::move(next.responses.begin(), next.responses.end(), std::back_inserter(part.responses));
  part.counts = next.counts;
  part.finish = next.finish;
  part.stop_string = std::move(next.stop_string);
  part.stop_token = next.stop_token;
  part.why = std::move(next.why);
}

namespace {

json model_object(const model_entry& model, const std::string& name) {
  return {{"id", name},
          {"object", "model"},
          {"created", model.created},
          {"owned_by", "troupe"},
          {"root", model.name},
          {"parent", nullptr},
          {"max_model_len", model.max_model_len}};
}

json replica_object(const replica_status& r) {
  return {{"model", r.model},
          {"version", r.version},
          {"replica", value(r.replica)},
          {"node", r.node},
          {"state", r.state},
          {"running", r.running},
          {"waiting", r.waiting},
          {"blocks_used", r.blocks_used},
          {"blocks_total", r.blocks_total},
          {"prompt_tokens", r.prompt_tokens},
          {"generation_tokens", r.generation_tokens},
          {"restarts", r.restarts}};
}

} // namespace

std::string models_json(const front_view& view) {
  json all = {{"object", "list"}, {"data", json::array()}};
  for (const auto& model : view.models)
    for (const auto& name : model.chosen ? model.served_names : std::vector<std::string>{})
      all["data"].push_back(model_object(model, name));
  return text_of(all);
}

std::string model_json(const model_entry& model) {
  const auto& name = model.served_names.empty() ? model.name : model.served_names.front();
  return text_of(model_object(model, name));
}

std::string status_json(const front_view& view) {
  json out = {{"cluster", view.status.cluster},
              {"draining", view.draining},
              {"nodes", json::array()},
              {"models", json::array()},
              {"replicas", json::array()}};
  for (const auto& n : view.status.nodes)
    out["nodes"].push_back({{"name", n.name},
                            {"address", n.address},
                            {"state", n.state},
                            {"note", n.note},
                            {"uptime_s", n.uptime_s},
                            {"since_s", n.since_s},
                            {"lanes", n.lanes},
                            {"round_trip_us", n.round_trip_us},
                            {"bytes_sent", n.bytes_sent},
                            {"bytes_received", n.bytes_received}});
  for (const auto& m : view.models)
    out["models"].push_back({{"name", m.name},
                             {"served_names", m.served_names},
                             {"state", m.state},
                             {"note", m.note},
                             {"max_model_len", m.max_model_len}});
  for (const auto& r : view.status.replicas)
    out["replicas"].push_back(replica_object(r));
  return text_of(out);
}

} // namespace troupe::actors
