#pragma once

#include "actors/backend/front_half.hpp"
#include "engine/text/detokenizer.hpp"
#include "engine/text/stop_matcher.hpp"
#include "troupe/actors/backend.hpp"

#include <memory>

namespace troupe::actors {

/// Turns the tokens of one request into the parts of its answer: whole characters only, nothing
/// that may still become a stop string, nothing behind one.
class text_stream final : public token_stream {
public:
  /// @errors invalid_argument, limit_exceeded: the stop strings
  [[nodiscard]] static result<std::shared_ptr<text_stream>>
  make(std::shared_ptr<const front_half> front, inference_request_ptr request,
       std::uint32_t prompt_tokens, response_sink_ptr sink);

  void on_accepted(const accepted& taken) override;
  void on_failed(const error& why) override;
  [[nodiscard]] bool on_chunk(const engine::token_chunk& chunk) override;

private:
  text_stream(std::shared_ptr<const front_half> front, inference_request_ptr request,
              engine::text::stop_matcher stops, response_sink_ptr sink);

  /// Returns true when a stop string was completed.
  bool push_text(const std::string& text, response_part& part);
  void tell_likelihoods(const engine::token_chunk& chunk, response_part& part);
  void finish(response_part& part, const engine::token_chunk& chunk);

  std::shared_ptr<const front_half> front_;
  inference_request_ptr request_;
  response_sink_ptr sink_;
  engine::text::detokenizer detokenizer_;
  engine::text::stop_matcher stops_;
  usage counts_;
  std::uint64_t token_characters_ = 0;
  double cumulative_logprob_ = 0;
  bool ended_ = false;
};

} // namespace troupe::actors
