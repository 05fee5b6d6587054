#pragma once

#include "troupe/actors/tensors.hpp"
#include "troupe/base/error.hpp"
#include "troupe/base/ids.hpp"
#include "troupe/engine/request.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace troupe::actors {

/// What a client asked for, as an edge understood it and before a backend looks at it. Fields
/// without a value were not given: the model's generation_config.json and vLLM's defaults fill
/// them.
struct inference_request {
  std::string model;
  /// Exactly one of the three is given: text, token ids, or a chat as the JSON array of its
  /// messages.
  std::optional<std::string> prompt_text;
  std::optional<std::vector<token_id>> prompt_ids;
  std::optional<std::string> messages_json;
  /// Variables of the chat template beside the messages, as a JSON object; may be empty.
  std::string template_kwargs_json;
  bool add_generation_prompt = true;
  /// Special tokens of the tokenizer's post-processor around a text prompt.
  bool add_special_tokens = true;

  std::optional<float> temperature;
  std::optional<std::int32_t> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<std::uint64_t> seed;
  std::optional<std::uint32_t> max_tokens;
  /// What the protocol takes where max_tokens is not given, as far as the context has room for it.
  std::optional<std::uint32_t> usual_max_tokens;
  std::optional<bool> ignore_eos;
  std::vector<token_id> stop_token_ids;
  /// How many of the likeliest tokens to tell with each token, and that one's own likelihood.
  std::optional<std::uint32_t> logprobs;
  std::vector<std::string> stop;
  bool include_stop_str_in_output = false;
  bool skip_special_tokens = true;

  /// Of a model whose backend takes tensors: the request as the client sent it; no prompt then.
  std::shared_ptr<const backends::request> tensors;
  /// The first dimension of these tensors where the model has batches; otherwise 1.
  std::uint32_t batch_size = 1;
  /// Parameters that the model's backend declared as its own.
  std::map<std::string, std::string> labels;

  std::int32_t priority = 0;
  std::string cache_salt;
  std::chrono::milliseconds timeout{0};
  /// When the edge had read the request; latencies count from here.
  std::chrono::steady_clock::time_point arrival{};
};

/// Token counts of one answer.
struct usage {
  std::uint32_t prompt_tokens = 0;
  std::uint32_t completion_tokens = 0;
  std::uint32_t cached_tokens = 0;
};

/// A token, the bytes that it adds to a text (not always whole characters), and the logarithm of
/// its probability.
struct token_text {
  token_id token = 0;
  std::string bytes;
  float logprob = 0;
};

/// How likely one token of an answer was.
struct token_likelihood {
  token_text chosen;
  /// 1 for the likeliest.
  std::uint32_t rank = 1;
  /// The likeliest first.
  std::vector<token_text> top;
  /// Characters in the tokens of this answer before it.
  std::uint64_t offset = 0;
};

/// A piece of an answer. The last one has a finish reason.
struct response_part {
  std::string text;
  std::uint32_t tokens = 0;
  /// One for each token where the request asks. A token stands here as soon as it is known, its
  /// text may come with a later part.
  std::vector<token_likelihood> likelihoods;
  /// The sum of the log-probabilities of all tokens so far, where the request asks.
  double cumulative_logprob = 0;
  engine::finish_reason finish = engine::finish_reason::none;
  /// The stop string that ended the answer, if one did.
  std::optional<std::string> stop_string;
  /// The token of stop_token_ids that ended the answer, if one did (not for eos).
  std::optional<token_id> stop_token;
  usage counts;
  /// Of a backend that answers in tensors: the responses that have come, in their order.
  std::vector<backends::response> responses;
  /// With finish_reason::error: why.
  error why;
};

/// Where the parts of one answer go. Called from the backend's thread, in order; never blocks;
/// holds its caller for microseconds at most. After a part with a finish reason no call follows.
class response_sink {
public:
  virtual ~response_sink() = default;
  /// The request was taken: tokens will come, or an error. At most once, before the first part.
  virtual void on_accepted(request_id id, std::uint32_t prompt_tokens) = 0;
  virtual void on_part(response_part part) = 0;
  /// This is the last request, of several computed together, that ends: they were of this size and
  /// took so long. Only of backends that take tensors, if one of the requests ended well.
  virtual void on_executed(std::uint32_t /*batch_size*/, std::chrono::nanoseconds /*took*/) {}
  /// False once the client is gone: what has not begun need not begin. From any thread.
  [[nodiscard]] virtual bool wanted() const { return true; }
};

using inference_request_ptr = std::shared_ptr<const inference_request>;
using response_sink_ptr = std::shared_ptr<response_sink>;

/// A backend that takes requests without a message on the way, from any thread.
class request_door {
public:
  request_door() = default;
  virtual ~request_door() = default;
  request_door(const request_door&) = delete;
  request_door& operator=(const request_door&) = delete;

  /// As the message `execute`: the sink hears of everything, refusals included.
  virtual void let_in(inference_request_ptr request, response_sink_ptr sink) = 0;
};

} // namespace troupe::actors
