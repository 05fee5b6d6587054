#pragma once

#include "actors/edge/api_error.hpp"
#include "actors/front_desk.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace troupe::actors {

/// What all objects of one answer share.
struct answer_head {
  /// "cmpl-..." or "chatcmpl-...".
  std::string id;
  bool chat = false;
  /// Unix time.
  std::int64_t created = 0;
  std::string model;
  /// The tokens' likelihoods are told.
  bool logprobs = false;
  /// With a stream that ends in its counts, all other chunks say "usage": null.
  bool null_usage = false;
};

/// One server-sent event of a stream: the text of `part` for choice `index`, and how it ended if it
/// did. `first` puts the role into a chat's delta.
[[nodiscard]] std::string stream_event(const answer_head& head, std::size_t index,
                                       const response_part& part, bool first);
/// The event with the counts, after all others.
[[nodiscard]] std::string usage_event(const answer_head& head, const usage& counts);
/// An error in a stream that has begun.
[[nodiscard]] std::string error_event(const api_error& e);
/// "data: [DONE]".
[[nodiscard]] std::string done_event();

/// The whole answer; the parts are merged ones with their finish reasons, in the order of their
/// index.
[[nodiscard]] std::string full_answer(const answer_head& head,
                                      const std::vector<response_part>& choices);

/// The sum over the choices. A prompt's tokens count once for each choice that has them.
[[nodiscard]] usage total_usage(const std::vector<response_part>& choices);

/// Adds `next` behind `part`: texts are joined, the rest is the newer one's.
void merge(response_part& part, response_part next);

[[nodiscard]] std::string models_json(const front_view& view);
[[nodiscard]] std::string model_json(const model_entry& model);
/// GET /troupe/v1/status.
[[nodiscard]] std::string status_json(const front_view& view);

} // namespace troupe::actors
