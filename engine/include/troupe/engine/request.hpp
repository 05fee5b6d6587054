#pragma once

#include "troupe/base/error.hpp"
#include "troupe/base/ids.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::engine {

/// How the next token is chosen. Names and meaning are vLLM's; the defaults here are vLLM's
/// neutral ones, the model's own generation_config.json is applied before a request gets here.
///
/// The method is Gumbel-max: the arg max over the allowed tokens of
/// logit / temperature + g(seed, choice, position, token), with g from a counter-based generator,
/// so that the choice does not depend on the batch, the order of summation or the machine.
struct sampling_params {
  /// 0 (below 1e-5) means greedy.
  float temperature = 1.0F;
  /// Only the k most likely tokens are allowed; 0 or -1 allows all.
  std::int32_t top_k = 0;
  /// Only the smallest set of tokens whose probability reaches top_p is allowed; in (0, 1].
  float top_p = 1.0F;
  /// Only tokens with at least min_p times the probability of the likeliest are allowed; in [0, 1].
  float min_p = 0.0F;
  /// Always set: a request without a seed is given one at admission.
  std::uint64_t seed = 0;
  /// Which of several answers to one prompt this is; enters g.
  std::uint32_t choice = 0;
  /// The most tokens to generate; at least 1.
  std::uint32_t max_tokens = 16;
  /// Goes on after an end-of-sequence token.
  bool ignore_eos = false;
  /// The model's end-of-sequence tokens.
  std::vector<token_id> eos_token_ids;
  /// Further tokens that end the answer; they stand in the answer's ids, not in its text.
  std::vector<token_id> stop_token_ids;
  /// With each token its log-probability, and those of this many likeliest tokens; -1 asks for
  /// none. At most max_logprobs.
  std::int32_t logprobs = -1;

  friend bool operator==(const sampling_params&, const sampling_params&) = default;
};

/// The most alternatives that a request may ask for with each token: vLLM's default, and OpenAI's.
inline constexpr std::int32_t max_logprobs = 20;

/// A token and the natural logarithm of its probability.
struct ranked_token {
  token_id token = 0;
  float logprob = 0;

  friend bool operator==(const ranked_token&, const ranked_token&) = default;
};

/// How likely one token of an answer was: by the model alone, before temperature and filters.
struct token_logprobs {
  ranked_token chosen;
  /// 1 for the likeliest: how many tokens were at least as likely, itself included.
  std::uint32_t rank = 1;
  /// The likeliest tokens, the likeliest first, of equals the lower id.
  std::vector<ranked_token> top;

  friend bool operator==(const token_logprobs&, const token_logprobs&) = default;
};

/// Why a stream of tokens ended; `none` while it goes on.
enum class finish_reason : std::uint8_t { none, stop, length, abort, error };

/// "stop", "length", ... as in OpenAI's API and in vLLM's metrics; "" for none.
[[nodiscard]] std::string_view to_string(finish_reason reason) noexcept;

/// Where tokens go: never an actor on the wire, so that a stream costs no proxy.
struct sink_address {
  hub_id hub{};
  stream_id stream{};

  friend bool operator==(const sink_address&, const sink_address&) = default;
};

/// One request for tokens, complete in itself: all that a replica needs to serve it, and, with
/// `delivered`, all that another replica needs to go on with it.
struct submission {
  request_id id{};
  std::string model;
  std::vector<token_id> prompt;
  sampling_params sampling;
  sink_address sink;
  /// The answer must end by then, counted from the arrival at the replica; 0 means no deadline.
  std::chrono::milliseconds timeout{0};
  /// Counted from 1; a resumed request carries the next one. Chunks of other attempts are dropped.
  std::uint32_t attempt = 1;
  /// Tokens that the client has already: the replica goes on behind them.
  std::vector<token_id> delivered;
  /// Under the priority policy the lower number goes first.
  std::int32_t priority = 0;
  /// Requests share cached prefixes only with requests of the same salt.
  std::string cache_salt;
};

/// The tokens of one step for one stream.
struct token_chunk {
  request_id request{};
  stream_id stream{};
  std::uint32_t attempt = 1;
  /// Position in the answer of the first token here; the hub takes only the next one.
  std::uint32_t offset = 0;
  std::vector<token_id> ids{};
  /// One for each of `ids` where the request asks for them; else none.
  std::vector<token_logprobs> logprobs{};
  finish_reason finish = finish_reason::none;
  /// The token that ended the answer by `stop`, or -1: eos or one of stop_token_ids.
  token_id stop_token = -1;
  /// Prompt tokens whose KV was found in the prefix cache; set in the first chunk of an attempt.
  std::uint32_t cached_tokens = 0;
  /// With finish_reason::error: what happened, for programs and for people.
  errc why = errc::none;
  std::string note;
};

/// All chunks of one step for one front process.
struct token_batch {
  replica_id replica{};
  std::vector<token_chunk> chunks;
};

} // namespace troupe::engine
