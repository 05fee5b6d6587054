#include "tests/cluster/netem/switch.hpp"

#include <algorithm>

namespace netem {

namespace {

constexpr std::size_t frames_max = 65536;

double fraction(troupe::splitmix64& draws) {
  return static_cast<double>(draws() >> 11) * 0x1.0p-53;
}

} // namespace

ether_switch::ether_switch(std::size_t ports, std::uint64_t seed)
    : ports_{ports}, ways_(ports * ports) {
  troupe::splitmix64 seeds{seed};
  for (auto& way : ways_)
    way.draws = troupe::splitmix64{seeds()};
}

void ether_switch::take(std::size_t from, const frame& what, time_point now) {
  // The program gives the interface of port n the address 02:00:00:00:00:n+1.
  constexpr std::size_t address_bytes = 6;
  if (what.size() < 2 * address_bytes)
    return;
  const auto port = static_cast<std::size_t>(what[address_bytes - 1]) - 1;
  const bool unicast = (what[0] & std::byte{1}) == std::byte{0};
  for (std::size_t to = 0; to < ports_; ++to)
    if (to != from && (!unicast || to == port))
      pass(from, to, what, now);
}

void ether_switch::pass(std::size_t from, std::size_t to, const frame& what, time_point now) {
  auto& way = at(from, to);
  // Always three draws a frame, so that a condition that changes moves no other draw.
  const bool lost = fraction(way.draws) < way.how.loss;
  const bool late = fraction(way.draws) < way.how.reorder;
  const auto extra = std::chrono::microseconds{500 + way.draws.below(2500)};
  if (way.how.cut || queue_.size() >= frames_max) {
    ++way.seen.swallowed;
    return;
  }
  if (lost) {
    ++way.seen.lost;
    return;
  }
  auto due = now + way.how.delay;
  if (late) {
    due += extra;
    ++way.seen.reordered;
  } else {
    due = way.last_due = std::max(due, way.last_due);
  }
  queue_.push({due, next_number_++, from, to, what});
}

time_point ether_switch::due() const {
  return queue_.empty() ? time_point::max() : queue_.top().due;
}

void ether_switch::release(time_point now,
                           const std::function<void(std::size_t to, const frame&)>& deliver) {
  while (!queue_.empty() && queue_.top().due <= now) {
    const auto& next = queue_.top();
    auto& way = at(next.from, next.to);
    if (way.how.cut) {
      ++way.seen.swallowed;
    } else {
      ++way.seen.delivered;
      deliver(next.to, next.what);
    }
    queue_.pop();
  }
}

} // namespace netem
