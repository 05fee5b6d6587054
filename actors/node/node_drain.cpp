// The part of a node that empties it.
#include "actors/node/node.hpp"
#include "troupe/base/log.hpp"

#include <utility>

namespace troupe::actors {

namespace {

constexpr std::chrono::seconds drain_limit{5};
/// Of a tenth of a second each.
constexpr std::uint32_t quiet_ticks_wanted = 4;
/// What routers sent before they heard of the drain is here by then.
constexpr std::chrono::milliseconds settling{300};
/// After the deadline, for what was handed over or cut to be gone.
constexpr std::chrono::seconds grace{2};

time_point now() { return std::chrono::steady_clock::now(); }

} // namespace

/// Requests in the replicas of this process, whichever front they came through, and ranks of
/// replicas of others.
std::uint64_t node_state::held() const {
  std::uint64_t sum = seats_.size();
  for (const auto& [id, replica] : replicas_)
    sum += replica.report.stats.running + replica.report.stats.waiting;
  return sum;
}

void node_state::begin_drain() {
  if (std::exchange(draining_, true))
    return;
  drain_began_ = now();
  // Alone, the router of the process refuses, and what it holds is all that runs.
  if (!alone())
    for (const auto& [id, replica] : replicas_)
      tell(self_, replica.supervisor, drain_atom::value);
  for (const auto& rank : seats_)
    tell(self_, rank.owner, drain_atom::value);
  publish();
}

void node_state::take_order(const drain_order& order) {
  log_info("draining by order, for at most {} s",
           std::chrono::duration_cast<std::chrono::seconds>(order.deadline).count());
  order_ = order;
  order_end_ = now() + order.deadline;
  quiet_ticks_ = 0;
  begin_drain();
}

void node_state::watch_drain() {
  if (!order_)
    return;
  if (!options_.router)
    return judge_drain(0);
  ask(self_, options_.router, drain_limit, drain_atom::value)
      .then([this](std::uint64_t streams) { judge_drain(streams); },
            [this](const caf::error&) { judge_drain(0); });
}

void node_state::judge_drain(std::uint64_t streams) {
  if (!order_)
    return;
  const bool busy = streams + held() + options_.desk->answers_open() > 0;
  quiet_ticks_ = busy ? 0 : quiet_ticks_ + 1;
  if (now() > order_end_ && busy && !handed_over_) {
    log_warn("the deadline of the drain has come: what still runs goes on at other replicas");
    hand_over();
    if (options_.router)
      post(options_.router, cancel_atom::value);
  }
  if (quiet_ticks_ < quiet_ticks_wanted && now() < order_end_ + grace)
    return;
  log_info("drained");
  options_.fate->drained = true;
  const bool stay = order_->stay;
  order_.reset();
  publish();
  if (!stay)
    options_.fate->may_end = true;
}

void node_state::hand_over() {
  handed_over_ = true;
  const error why{errc::draining, "the node that served the request is being emptied"};
  if (!alone())
    for (const auto& [id, replica] : replicas_)
      tell(self_, replica.supervisor, detach_atom::value, to_caf(why));
  for (const auto& rank : seats_)
    tell(self_, rank.owner, detach_atom::value, to_caf(why));
}

caf::result<std::uint64_t> node_state::drain() {
  begin_drain();
  const std::uint64_t coming = now() - drain_began_ < settling ? 1 : 0;
  const auto others = alone() ? 0 : held() + coming;
  if (!options_.router)
    return others;
  auto left = self_->make_response_promise<std::uint64_t>();
  ask(self_, options_.router, drain_limit, drain_atom::value)
      .then([left, others](std::uint64_t streams) mutable { left.deliver(streams + others); },
            [left, others](const caf::error&) mutable { left.deliver(others); });
  return left;
}

caf::result<std::uint64_t> node_state::cut() {
  hand_over();
  if (!options_.router)
    return held();
  auto ended = self_->make_response_promise<std::uint64_t>();
  ask(self_, options_.router, drain_limit, cancel_atom::value)
      .then([ended](std::uint64_t streams) mutable { ended.deliver(streams); },
            [ended](const caf::error&) mutable { ended.deliver(std::uint64_t{0}); });
  return ended;
}

} // namespace troupe::actors
