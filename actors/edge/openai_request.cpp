#include "actors/edge/openai_request.hpp"

#include "actors/edge/json_body.hpp"
#include "actors/edge/request_fields.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

namespace troupe::actors {

namespace {

using nlohmann::json;

/// What OpenAI and vLLM generate for a completion that says nothing.
constexpr std::uint32_t default_completion_tokens = 16;

checked<std::vector<token_id>> read_ids(const json& list, const std::string& name) {
  constexpr integer_range range{0, std::numeric_limits<token_id>::max()};
  std::vector<token_id> ids;
  ids.reserve(list.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (!list[i].is_number_integer())
      return refuse(name, fmt::format("'{}' must hold only token ids, item {} is none", name, i),
                    "invalid_type");
    // Only an error needs the item's own name, which takes longer to write than the id to read.
    const auto id = as_integer(list[i], name, range);
    if (!id)
      return tl::unexpected<api_error>(
          as_integer(list[i], fmt::format("{}[{}]", name, i), range).error());
    ids.push_back(static_cast<token_id>(*id));
  }
  return ids;
}

/// Adds one choice whose prompt is a string or a list of token ids.
checked<void> add_prompt(request_draft& draft, const json& v, const std::string& name) {
  auto one = draft.shared;
  if (v.is_string()) {
    one.prompt_text = v.get<std::string>();
  } else if (v.is_array() && !v.empty()) {
    auto ids = read_ids(v, name);
    if (!ids)
      return tl::unexpected<api_error>(std::move(ids.error()));
    one.prompt_ids = std::move(*ids);
  } else {
    return refuse(name, fmt::format("'{}' must be a string or a list of token ids", name),
                  "invalid_type");
  }
  draft.request.prompts.push_back(std::move(one));
  return {};
}

checked<void> read_prompt(request_draft& draft, const json& v) {
  const bool list = v.is_array() && !v.empty() && (v[0].is_string() || v[0].is_array());
  if (!list)
    return add_prompt(draft, v, "prompt");
  if (v.size() > draft.prompts.most)
    return refuse("prompt", fmt::format("'prompt' has {} prompts, at most {} are allowed in one "
                                        "request ({}); send several requests",
                                        v.size(), draft.prompts.most, draft.prompts.setting));
  for (std::size_t i = 0; i < v.size(); ++i) {
    auto added = add_prompt(draft, v[i], fmt::format("prompt[{}]", i));
    if (!added)
      return added;
  }
  return {};
}

/// The text of a message: a string, or parts of type text joined by line breaks.
checked<std::string> read_content(const json& v, const std::string& name) {
  if (v.is_null())
    return std::string{};
  if (v.is_string())
    return v.get<std::string>();
  if (!v.is_array())
    return refuse(name, fmt::format("'{}' must be a string or a list of parts", name),
                  "invalid_type");
  std::string text;
  for (std::size_t i = 0; i < v.size(); ++i) {
    const auto path = fmt::format("{}[{}]", name, i);
    const auto& part = v[i];
    if (!part.is_object() || !part.contains("type") || !part["type"].is_string())
      return refuse(path, fmt::format("'{}' must be an object with a 'type'", path),
                    "invalid_type");
    const auto type = part["type"].get<std::string>();
    if (type != "text")
      return refuse(
          path,
          fmt::format("'{}' has type '{}'; only 'text' is supported", path, type.substr(0, 64)),
          "unsupported_parameter");
    if (!part.contains("text") || !part["text"].is_string())
      return refuse(path + ".text", fmt::format("'{}.text' must be a string", path),
                    "invalid_type");
    if (i > 0)
      text += '\n';
    text += part["text"].get<std::string>();
  }
  return text;
}

checked<std::string> read_role(const json& message, const std::string& path) {
  static constexpr std::array roles = {"system", "user", "assistant", "tool", "developer"};
  const auto role = message.find("role");
  const bool known =
      role != message.end() && role->is_string() &&
      std::find(roles.begin(), roles.end(), role->get_ref<const std::string&>()) != roles.end();
  if (!known)
    return refuse(
        path + ".role",
        fmt::format("'{}.role' must be system, developer, user, assistant or tool", path));
  // Templates know the older of the two names.
  return *role == "developer" ? std::string{"system"} : role->get<std::string>();
}

/// Fields beside role and content.
checked<void> check_extras(const json& message, const std::string& path) {
  for (const auto& [key, value] : message.items()) {
    const bool nothing = value.is_null() || (value.is_array() && value.empty());
    if (key == "role" || key == "content" || nothing)
      continue;
    const auto field = fmt::format("{}.{}", path, key.substr(0, 64));
    if (key != "name")
      return refuse(field, fmt::format("'{}' is not supported; leave it out", field),
                    "unsupported_parameter");
    auto name = as_text(value, field);
    if (!name)
      return tl::unexpected<api_error>(std::move(name.error()));
  }
  return {};
}

checked<json> read_message(const json& message, const std::string& path) {
  if (!message.is_object())
    return refuse(path, fmt::format("'{}' must be an object", path), "invalid_type");
  auto role = read_role(message, path);
  if (!role)
    return tl::unexpected<api_error>(std::move(role.error()));
  auto extras = check_extras(message, path);
  if (!extras)
    return tl::unexpected<api_error>(std::move(extras.error()));
  const auto field = path + ".content";
  if (!message.contains("content") || (message["content"].is_null() && *role != "assistant"))
    return refuse(field, fmt::format("'{}' is missing", field), "missing_required_parameter");
  auto content = read_content(message["content"], field);
  if (!content)
    return tl::unexpected<api_error>(std::move(content.error()));
  json out = {{"role", std::move(*role)}, {"content", std::move(*content)}};
  if (message.contains("name") && message["name"].is_string())
    out["name"] = message["name"];
  return out;
}

checked<void> read_messages(request_draft& draft, const json& v) {
  if (!v.is_array() || v.empty())
    return refuse("messages", "'messages' must be a list of at least one message", "invalid_type");
  auto out = json::array();
  for (std::size_t i = 0; i < v.size(); ++i) {
    auto message = read_message(v[i], fmt::format("messages[{}]", i));
    if (!message)
      return tl::unexpected<api_error>(std::move(message.error()));
    out.push_back(std::move(*message));
  }
  draft.shared.messages_json = out.dump();
  draft.request.prompts.push_back(draft.shared);
  return {};
}

checked<api_request> parse(std::string_view text, endpoint at, prompt_limit limit) {
  const auto body = parse_body(text);
  if (!body)
    return tl::unexpected<api_error>(body.error());
  request_draft draft;
  draft.prompts = limit;
  draft.request.chat = at == endpoint::chat;
  auto fields = read_fields(*body, at, draft);
  if (!fields)
    return tl::unexpected<api_error>(std::move(fields.error()));
  draft.shared.model = draft.request.model;
  if (at == endpoint::completions && !draft.shared.max_tokens)
    draft.shared.usual_max_tokens = default_completion_tokens;
  const std::string name = draft.request.chat ? "messages" : "prompt";
  const auto given = body->find(name);
  if (given == body->end() || given->is_null())
    return refuse(name, fmt::format("'{}' is missing", name), "missing_required_parameter");
  auto read = draft.request.chat ? read_messages(draft, *given) : read_prompt(draft, *given);
  if (!read)
    return tl::unexpected<api_error>(std::move(read.error()));
  return std::move(draft.request);
}

} // namespace

checked<api_request> parse_completion(std::string_view body, prompt_limit limit) {
  return parse(body, endpoint::completions, limit);
}

checked<api_request> parse_chat(std::string_view body) { return parse(body, endpoint::chat, {}); }

} // namespace troupe::actors
