#include "actors/edge/answer.hpp"

#include <chrono>
#include <utility>

namespace troupe::actors {

namespace {

std::int64_t unix_time() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

answer_head head_for(const api_request& request, const model_entry& model, const std::string& id) {
  answer_head head;
  head.chat = request.chat;
  head.id = (request.chat ? "chatcmpl-" : "cmpl-") + id;
  head.created = unix_time();
  head.model = model.served_names.empty() ? model.name : model.served_names.front();
  head.logprobs = request.prompts.front().logprobs.has_value();
  head.null_usage = request.stream && request.include_usage;
  return head;
}

} // namespace

answer::answer(api_request request, const model_entry& model, origin from)
    : request_{std::move(request)}, backend_{model.backend}, lease_{model.lease},
      counted_as_{model.name, std::to_string(model.version)}, from_{std::move(from)},
      head_{head_for(request_, model, from_.id)}, inbox_{std::make_shared<inbox>(
                                                      request_.prompts.size(), from_.wake)},
      choices_(request_.prompts.size()),
      begun_(request_.prompts.size()), open_{request_.prompts.size()} {}

answer::~answer() { abandon(); }

void answer::begin() {
  for (std::size_t i = 0; i < request_.prompts.size(); ++i) {
    auto& prompt = request_.prompts[i];
    prompt.arrival = from_.arrival;
    auto sink = std::make_shared<choice_sink>(inbox_, i,
                                              sink_origin{.model = head_.model,
                                                          .arrival = from_.arrival,
                                                          .numbers = from_.numbers,
                                                          .counts = from_.counts,
                                                          .counted_as = counted_as_,
                                                          .stream = request_.stream});
    sinks_.push_back(sink);
    post(backend_, execute_atom_v,
         inference_request_ptr{std::make_shared<const inference_request>(std::move(prompt))},
         response_sink_ptr{std::move(sink)});
  }
}

void answer::take_part(std::size_t choice, response_part part, output& out) {
  if (part.finish == engine::finish_reason::error) {
    const auto seen = to_api_error(part.why);
    choices_[choice].finish = part.finish;
    if (started_)
      out.bytes += error_event(seen);
    else
      out.whole = error_reply(seen);
    out.end = true;
    out.broken = true;
    return;
  }
  const bool ends = part.finish != engine::finish_reason::none;
  if (request_.stream) {
    if (ends || !part.text.empty() || !part.likelihoods.empty()) {
      out.bytes += stream_event(head_, choice, part, !begun_[choice]);
      begun_[choice] = true;
      started_ = true;
    }
    part.text.clear();
    part.likelihoods.clear();
  }
  merge(choices_[choice], std::move(part));
  if (ends)
    --open_;
}

answer::output answer::take() {
  output out;
  for (auto& entry : inbox_->take()) {
    take_part(entry.choice, std::move(entry.part), out);
    if (out.end) {
      abandon();
      return out;
    }
  }
  if (open_ > 0)
    return out;
  out.end = true;
  if (!request_.stream) {
    out.whole.emplace();
    out.whole->body = full_answer(head_, choices_);
    return out;
  }
  if (request_.include_usage)
    out.bytes += usage_event(head_, total_usage(choices_));
  out.bytes += done_event();
  return out;
}

void answer::abandon() {
  inbox_->close();
  for (std::size_t i = 0; i < sinks_.size(); ++i)
    if (choices_[i].finish == engine::finish_reason::none)
      if (auto sink = sinks_[i].lock())
        post(backend_, abandon_atom_v, response_sink_ptr{std::move(sink)});
  sinks_.clear();
}

} // namespace troupe::actors
