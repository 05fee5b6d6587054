#include "actors/backend/text_stream.hpp"

#include <algorithm>
#include <utility>

namespace troupe::actors {

namespace {

/// Counts the bytes that begin a character.
std::uint64_t characters_of(std::string_view text) {
  return static_cast<std::uint64_t>(std::ranges::count_if(
      text, [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0U) != 0x80U; }));
}

} // namespace

text_stream::text_stream(std::shared_ptr<const front_half> front, inference_request_ptr request,
                         engine::text::stop_matcher stops, response_sink_ptr sink)
    : front_{std::move(front)}, request_{std::move(request)}, sink_{std::move(sink)},
      detokenizer_{front_->tokenizer(), {.skip_special_tokens = request_->skip_special_tokens}},
      stops_{std::move(stops)} {}

result<std::shared_ptr<text_stream>> text_stream::make(std::shared_ptr<const front_half> front,
                                                       inference_request_ptr request,
                                                       std::uint32_t prompt_tokens,
                                                       response_sink_ptr sink) {
  auto stops = engine::text::stop_matcher::make(request->stop, request->include_stop_str_in_output);
  if (!stops)
    return fail(stops.error());
  std::shared_ptr<text_stream> made{
      new text_stream{std::move(front), std::move(request), std::move(*stops), std::move(sink)}};
  made->counts_.prompt_tokens = prompt_tokens;
  return made;
}

void text_stream::on_accepted(const accepted& taken) {
  sink_->on_accepted(taken.id, counts_.prompt_tokens);
}

void text_stream::on_failed(const error& why) {
  if (std::exchange(ended_, true))
    return;
  response_part last;
  last.finish = engine::finish_reason::error;
  last.why = why;
  last.counts = counts_;
  sink_->on_part(std::move(last));
}

bool text_stream::push_text(const std::string& text, response_part& part) {
  part.text += stops_.push(text);
  const auto matched = stops_.matched();
  if (!matched)
    return false;
  part.finish = engine::finish_reason::stop;
  part.stop_string = request_->stop.at(*matched);
  return true;
}

/// A token that a stop string made useless is told like the others: it counts as well.
void text_stream::tell_likelihoods(const engine::token_chunk& chunk, response_part& part) {
  const auto& tokens = front_->tokenizer();
  const auto text_of = [&](const engine::ranked_token& one) {
    return token_text{one.token, tokens.token_bytes(one.token), one.logprob};
  };
  for (std::size_t i = 0; i < std::min<std::size_t>(part.tokens, chunk.logprobs.size()); ++i) {
    const auto& likely = chunk.logprobs[i];
    token_likelihood told{text_of(likely.chosen), likely.rank, {}, token_characters_};
    for (const auto& one : likely.top)
      told.top.push_back(text_of(one));
    token_characters_ += characters_of(told.chosen.bytes);
    cumulative_logprob_ += static_cast<double>(likely.chosen.logprob);
    part.likelihoods.push_back(std::move(told));
  }
  part.cumulative_logprob = cumulative_logprob_;
}

void text_stream::finish(response_part& part, const engine::token_chunk& chunk) {
  if (chunk.finish == engine::finish_reason::none || part.finish != engine::finish_reason::none)
    return;
  if (push_text(detokenizer_.flush(), part))
    return;
  part.text += stops_.flush();
  part.finish = chunk.finish;
  const auto& asked = request_->stop_token_ids;
  if (std::find(asked.begin(), asked.end(), chunk.stop_token) != asked.end())
    part.stop_token = chunk.stop_token;
  if (chunk.finish == engine::finish_reason::error)
    part.why = {chunk.why, chunk.note};
}

bool text_stream::on_chunk(const engine::token_chunk& chunk) {
  response_part part;
  if (chunk.cached_tokens > 0)
    counts_.cached_tokens = chunk.cached_tokens;
  const bool stopped = chunk.finish == engine::finish_reason::stop && chunk.stop_token >= 0;
  for (std::size_t i = 0; i < chunk.ids.size(); ++i) {
    ++counts_.completion_tokens;
    ++part.tokens;
    const bool is_end = stopped && i + 1 == chunk.ids.size();
    if (is_end && !request_->include_stop_str_in_output)
      break;
    if (push_text(detokenizer_.push(chunk.ids[i]), part))
      break;
  }
  tell_likelihoods(chunk, part);
  finish(part, chunk);
  part.counts = counts_;
  ended_ = part.finish != engine::finish_reason::none;
  sink_->on_part(std::move(part));
  return !ended_;
}

} // namespace troupe::actors
