#include "actors/edge/request_fields.hpp"

#include "actors/edge/json_body.hpp"
#include "actors/edge/refused_fields.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

namespace troupe::actors {

namespace {

using nlohmann::json;
using read_function = checked<void> (*)(request_draft&, const json&, std::string_view);

constexpr integer_range counts{1, std::numeric_limits<std::int32_t>::max()};
constexpr integer_range token_range{0, std::numeric_limits<std::int32_t>::max()};
constexpr std::size_t max_stops = 16;
constexpr std::size_t max_stop_bytes = 1024;
constexpr std::size_t max_stop_ids = 128;

/// Hands the value on, or the error.
template <class T, class F>
checked<void> keep(checked<T> value, F&& store) {
  if (!value)
    return tl::unexpected<api_error>(std::move(value.error()));
  store(std::move(*value));
  return {};
}

template <bool inference_request::*Member>
checked<void> shared_bool(request_draft& d, const json& v, std::string_view name) {
  return keep(as_bool(v, name), [&](bool b) { d.shared.*Member = b; });
}

checked<void> read_model(request_draft& d, const json& v, std::string_view name) {
  auto text = as_text(v, name);
  if (text && text->empty())
    return refuse("model", "'model' is empty; GET /v1/models lists the names");
  return keep(std::move(text), [&](std::string s) { d.request.model = std::move(s); });
}

checked<void> read_stream(request_draft& d, const json& v, std::string_view name) {
  return keep(as_bool(v, name), [&](bool b) { d.request.stream = b; });
}

checked<void> read_stream_options(request_draft& d, const json& v, std::string_view name) {
  if (!v.is_object())
    return refuse(std::string{name}, "'stream_options' must be an object", "invalid_type");
  d.stream_options = true;
  for (const auto& [key, value] : v.items()) {
    const auto path = fmt::format("stream_options.{}", key);
    if (key == "include_usage") {
      auto read = keep(as_bool(value, path), [&](bool b) { d.request.include_usage = b; });
      if (!read)
        return read;
    } else if (key != "continuous_usage_stats" && key != "include_obfuscation") {
      return refuse(path, fmt::format("'{}' is not a known field", path), "unknown_parameter");
    } else if (!value.is_null() && value != false) {
      return refuse(path, fmt::format("'{}' is not supported; leave it out", path),
                    "unsupported_parameter");
    }
  }
  return {};
}

checked<void> read_temperature(request_draft& d, const json& v, std::string_view name) {
  return keep(as_number(v, name, {0, 100}), [&](double x) { d.shared.temperature = float(x); });
}

checked<void> read_top_p(request_draft& d, const json& v, std::string_view name) {
  return keep(as_number(v, name, {0, 1, true}), [&](double x) { d.shared.top_p = float(x); });
}

checked<void> read_min_p(request_draft& d, const json& v, std::string_view name) {
  return keep(as_number(v, name, {0, 1}), [&](double x) { d.shared.min_p = float(x); });
}

checked<void> read_top_k(request_draft& d, const json& v, std::string_view name) {
  return keep(as_integer(v, name, {-1, std::numeric_limits<std::int32_t>::max()}),
              [&](std::int64_t k) { d.shared.top_k = static_cast<std::int32_t>(k); });
}

checked<void> read_seed(request_draft& d, const json& v, std::string_view name) {
  constexpr auto least = std::numeric_limits<std::int64_t>::min();
  constexpr auto most = std::numeric_limits<std::int64_t>::max();
  return keep(as_integer(v, name, {least, most}),
              [&](std::int64_t s) { d.shared.seed = static_cast<std::uint64_t>(s); });
}

/// max_tokens and max_completion_tokens name the same thing.
checked<void> read_max_tokens(request_draft& d, const json& v, std::string_view name) {
  const auto n = as_integer(v, name, counts);
  if (!n)
    return tl::unexpected<api_error>(n.error());
  const auto tokens = static_cast<std::uint32_t>(*n);
  if (d.shared.max_tokens && *d.shared.max_tokens != tokens)
    return refuse(std::string{name}, "'max_tokens' and 'max_completion_tokens' differ; give one");
  d.shared.max_tokens = tokens;
  return {};
}

checked<void> read_ignore_eos(request_draft& d, const json& v, std::string_view name) {
  return keep(as_bool(v, name), [&](bool b) { d.shared.ignore_eos = b; });
}

checked<void> read_stop(request_draft& d, const json& v, std::string_view name) {
  const auto list = v.is_array() ? v : json::array({v});
  if (list.size() > max_stops)
    return refuse("stop", fmt::format("'stop' has {} strings, at most {} are allowed", list.size(),
                                      max_stops));
  for (std::size_t i = 0; i < list.size(); ++i) {
    const auto path = v.is_array() ? fmt::format("stop[{}]", i) : std::string{name};
    auto text = as_text(list[i], path);
    if (!text)
      return tl::unexpected<api_error>(std::move(text.error()));
    if (text->empty() || text->size() > max_stop_bytes)
      return refuse(path, fmt::format("'{}' must have 1 to {} bytes", path, max_stop_bytes));
    d.shared.stop.push_back(std::move(*text));
  }
  return {};
}

checked<void> read_stop_token_ids(request_draft& d, const json& v, std::string_view name) {
  if (!v.is_array() || v.size() > max_stop_ids)
    return refuse(std::string{name},
                  fmt::format("'{}' must be a list of at most {} token ids", name, max_stop_ids),
                  "invalid_type");
  for (std::size_t i = 0; i < v.size(); ++i) {
    const auto id = as_integer(v[i], fmt::format("{}[{}]", name, i), token_range);
    if (!id)
      return tl::unexpected<api_error>(id.error());
    d.shared.stop_token_ids.push_back(static_cast<token_id>(*id));
  }
  return {};
}

/// A count in completions, yes or no in a chat, where top_logprobs is the count.
checked<void> read_logprobs(request_draft& d, const json& v, std::string_view name) {
  if (v == false)
    return {};
  return keep(as_integer(v, name, {0, engine::max_logprobs}),
              [&](std::int64_t k) { d.shared.logprobs = static_cast<std::uint32_t>(k); });
}

checked<void> read_chat_logprobs(request_draft& d, const json& v, std::string_view name) {
  return keep(as_bool(v, name), [&](bool wanted) { d.chat_logprobs = wanted; });
}

checked<void> read_top_logprobs(request_draft& d, const json& v, std::string_view name) {
  return keep(as_integer(v, name, {0, engine::max_logprobs}),
              [&](std::int64_t k) { d.shared.logprobs = static_cast<std::uint32_t>(k); });
}

checked<void> settle_logprobs(request_draft& d) {
  if (d.chat_logprobs && !d.shared.logprobs)
    d.shared.logprobs = 0;
  if (!d.chat_logprobs && d.shared.logprobs == 0U)
    d.shared.logprobs.reset();
  if (!d.chat_logprobs && d.shared.logprobs)
    return refuse("top_logprobs", "'top_logprobs' is only allowed with 'logprobs': true");
  return {};
}

checked<void> read_priority(request_draft& d, const json& v, std::string_view name) {
  return keep(as_integer(v, name, {std::numeric_limits<std::int32_t>::min(), counts.most}),
              [&](std::int64_t p) { d.shared.priority = static_cast<std::int32_t>(p); });
}

checked<void> read_cache_salt(request_draft& d, const json& v, std::string_view name) {
  auto text = as_text(v, name);
  if (text && (text->empty() || text->size() > max_stop_bytes))
    return refuse(std::string{name},
                  fmt::format("'{}' must have 1 to {} bytes", name, max_stop_bytes));
  return keep(std::move(text), [&](std::string s) { d.shared.cache_salt = std::move(s); });
}

checked<void> read_template_kwargs(request_draft& d, const json& v, std::string_view name) {
  if (!v.is_object())
    return refuse(std::string{name}, fmt::format("'{}' must be an object", name), "invalid_type");
  d.shared.template_kwargs_json = v.dump();
  return {};
}

checked<void> read_prompt_later(request_draft&, const json&, std::string_view) { return {}; }

// Fields that change nothing about the answer are checked for their type and otherwise ignored.
checked<void> ignore_text(request_draft&, const json& v, std::string_view name) {
  return keep(as_text(v, name), [](std::string) {});
}
/// What a model's backend may read as labels, and no other.
checked<void> read_metadata(request_draft& d, const json& v, std::string_view name) {
  constexpr std::size_t most_labels = 16;
  if (!v.is_object())
    return refuse(std::string{name}, fmt::format("'{}' must be an object", name), "invalid_type");
  for (const auto& [key, value] : v.items())
    if (value.is_string() && d.shared.labels.size() < most_labels)
      d.shared.labels[key] = value.get<std::string>();
  return {};
}
checked<void> ignore_bool(request_draft&, const json& v, std::string_view name) {
  return keep(as_bool(v, name), [](bool) {});
}

struct known_field {
  std::string_view name;
  endpoint where;
  read_function read;
};

constexpr std::array known_fields = {
    known_field{"model", endpoint::both, read_model},
    known_field{"prompt", endpoint::completions, read_prompt_later},
    known_field{"messages", endpoint::chat, read_prompt_later},
    known_field{"stream", endpoint::both, read_stream},
    known_field{"stream_options", endpoint::both, read_stream_options},
    known_field{"temperature", endpoint::both, read_temperature},
    known_field{"top_p", endpoint::both, read_top_p},
    known_field{"top_k", endpoint::both, read_top_k},
    known_field{"min_p", endpoint::both, read_min_p},
    known_field{"seed", endpoint::both, read_seed},
    known_field{"max_tokens", endpoint::both, read_max_tokens},
    known_field{"max_completion_tokens", endpoint::chat, read_max_tokens},
    known_field{"stop", endpoint::both, read_stop},
    known_field{"stop_token_ids", endpoint::both, read_stop_token_ids},
    known_field{"ignore_eos", endpoint::both, read_ignore_eos},
    known_field{"logprobs", endpoint::completions, read_logprobs},
    known_field{"logprobs", endpoint::chat, read_chat_logprobs},
    known_field{"top_logprobs", endpoint::chat, read_top_logprobs},
    known_field{"include_stop_str_in_output", endpoint::both,
                shared_bool<&inference_request::include_stop_str_in_output>},
    known_field{"skip_special_tokens", endpoint::both,
                shared_bool<&inference_request::skip_special_tokens>},
    known_field{"add_special_tokens", endpoint::both,
                shared_bool<&inference_request::add_special_tokens>},
    known_field{"add_generation_prompt", endpoint::chat,
                shared_bool<&inference_request::add_generation_prompt>},
    known_field{"chat_template_kwargs", endpoint::chat, read_template_kwargs},
    known_field{"priority", endpoint::both, read_priority},
    known_field{"cache_salt", endpoint::both, read_cache_salt},
    known_field{"user", endpoint::both, ignore_text},
    known_field{"safety_identifier", endpoint::both, ignore_text},
    known_field{"prompt_cache_key", endpoint::both, ignore_text},
    known_field{"service_tier", endpoint::both, ignore_text},
    known_field{"metadata", endpoint::both, read_metadata},
    known_field{"parallel_tool_calls", endpoint::chat, ignore_bool},
};

bool stands_at(endpoint where, endpoint at) {
  return (static_cast<unsigned>(where) & static_cast<unsigned>(at)) != 0;
}

const known_field* find_known(std::string_view name, endpoint at) {
  const auto found = std::find_if(known_fields.begin(), known_fields.end(), [&](const auto& f) {
    return f.name == name && stands_at(f.where, at);
  });
  return found == known_fields.end() ? nullptr : &*found;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j)
    row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    auto diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const auto same = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, same});
    }
  }
  return row[b.size()];
}

tl::unexpected<api_error> unknown(std::string_view name, endpoint at) {
  // A long name is cut, so that the comparison and the message stay small.
  const auto shown = std::string{name.substr(0, 64)};
  std::string nearest;
  std::size_t best = 4;
  for (const auto& f : known_fields) {
    const auto far = edit_distance(shown, f.name);
    if (stands_at(f.where, at) && far < best) {
      best = far;
      nearest = f.name;
    }
  }
  const auto hint = nearest.empty() ? std::string{} : fmt::format("; did you mean '{}'?", nearest);
  return refuse(shown, fmt::format("'{}' is not a known field{}", shown, hint),
                "unknown_parameter");
}

} // namespace

checked<void> read_fields(const json& body, endpoint at, request_draft& draft) {
  for (const auto& [name, value] : body.items()) {
    const auto* field = find_known(name, at);
    if (field != nullptr) {
      if (value.is_null())
        continue;
      auto read = field->read(draft, value, name);
      if (!read)
        return read;
      continue;
    }
    auto asks = asks_for_nothing(name, value, at);
    if (!asks)
      return tl::unexpected<api_error>(std::move(asks.error()));
    if (!*asks)
      return unknown(name, at);
  }
  if (draft.request.model.empty())
    return refuse("model", "'model' is missing; GET /v1/models lists the names",
                  "missing_required_parameter");
  if (draft.stream_options && !draft.request.stream)
    return refuse("stream_options", "'stream_options' is only allowed with 'stream': true");
  return at == endpoint::chat ? settle_logprobs(draft) : checked<void>{};
}

} // namespace troupe::actors
