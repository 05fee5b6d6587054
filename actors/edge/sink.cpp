#include "actors/edge/sink.hpp"

#include "actors/edge/openai_response.hpp"
#include "actors/wake_batch.hpp"

#include <utility>

namespace troupe::actors {

namespace {

double seconds(duration d) { return std::chrono::duration<double>(d).count(); }

} // namespace

inbox::inbox(std::size_t choices, std::function<void()> wake)
    : pending_(choices), wake_{std::move(wake)} {}

void inbox::put(std::size_t choice, response_part part) {
  {
    const std::lock_guard lock{mutex_};
    if (closed_)
      return;
    auto& slot = pending_[choice];
    if (slot)
      merge(*slot, std::move(part));
    else
      slot = std::move(part);
    if (woken_)
      return;
    woken_ = true;
  }
  wake_batch::add(wake_);
}

std::vector<inbox::entry> inbox::take() {
  std::vector<entry> all;
  const std::lock_guard lock{mutex_};
  woken_ = false;
  for (std::size_t i = 0; i < pending_.size(); ++i)
    if (pending_[i]) {
      all.push_back({i, std::move(*pending_[i])});
      pending_[i].reset();
    }
  return all;
}

void inbox::close() {
  const std::lock_guard lock{mutex_};
  closed_ = true;
  for (auto& slot : pending_)
    slot.reset();
}

bool inbox::closed() const {
  const std::lock_guard lock{mutex_};
  return closed_;
}

choice_sink::choice_sink(std::shared_ptr<inbox> to, std::size_t choice, sink_origin origin)
    : to_{std::move(to)}, choice_{choice}, origin_{std::move(origin)}, responded_{origin_.arrival} {
  if (origin_.counts)
    origin_.counts->pending(origin_.counted_as, 1);
}

choice_sink::~choice_sink() {
  settle();
  if (finished_)
    return;
  if (origin_.counts)
    origin_.counts->failed(origin_.counted_as, times(),
                           to_->closed() ? errc::cancelled : errc::peer_down, responses_);
  response_part lost;
  lost.finish = engine::finish_reason::error;
  lost.why = {
      errc::peer_down,
      "the actor that held this request ended; it is being restarted, send the request again"};
  to_->put(choice_, std::move(lost));
}

void choice_sink::on_accepted(request_id, std::uint32_t) {
  accepted_ = std::chrono::steady_clock::now();
  settle();
}

/// The request waits no more, for whichever reason.
void choice_sink::settle() {
  if (std::exchange(pending_, false) && origin_.counts)
    origin_.counts->pending(origin_.counted_as, -1);
}

kserve::inference_times choice_sink::times() const {
  const auto now = std::chrono::steady_clock::now();
  const auto taken = accepted_.value_or(now);
  return {taken - origin_.arrival, now - taken};
}

void choice_sink::count(const outline& part) {
  const bool ends = part.finish != engine::finish_reason::none;
  if (!origin_.counts || !(ends || (origin_.stream && part.responds)))
    return;
  if (part.finish == engine::finish_reason::error)
    return origin_.counts->failed(origin_.counted_as, times(), part.why, responses_);
  origin_.counts->responded(origin_.counted_as, responses_++, part.at - responded_, part.empty);
  responded_ = part.at;
  if (!ends)
    return;
  const auto took = times();
  origin_.counts->succeeded(origin_.counted_as, took, origin_.batch_size);
  if (!origin_.tells_executions)
    origin_.counts->executed(origin_.counted_as, 1, took.infer);
}

void choice_sink::on_executed(std::uint32_t batch_size, std::chrono::nanoseconds took) {
  if (origin_.counts)
    origin_.counts->executed(origin_.counted_as, batch_size, took);
}

void choice_sink::on_part(response_part part) {
  if (finished_)
    return;
  finished_ = part.finish != engine::finish_reason::none;
  const outline seen{.at = std::chrono::steady_clock::now(),
                     .finish = part.finish,
                     .tokens = part.tokens,
                     .responds = part.tokens > 0 || !part.responses.empty(),
                     .empty = part.text.empty() && part.responses.empty(),
                     .why = part.why.code};
  // The client waits for a piece of a stream; whoever has seen the end finds it counted.
  if (!finished_)
    to_->put(choice_, std::move(part));
  observe(seen);
  count(seen);
  if (finished_)
    to_->put(choice_, std::move(part));
}

void choice_sink::observe(const outline& part) {
  if (!origin_.numbers || part.finish == engine::finish_reason::error)
    return;
  if (part.tokens > 0) {
    if (last_)
      origin_.numbers->observe_inter_token(origin_.model, seconds(part.at - *last_));
    else
      origin_.numbers->observe_first_token(origin_.model, seconds(part.at - origin_.arrival));
    last_ = part.at;
  }
  if (part.finish != engine::finish_reason::none)
    origin_.numbers->observe_e2e(origin_.model, seconds(part.at - origin_.arrival));
}

} // namespace troupe::actors
