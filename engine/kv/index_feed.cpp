#include "engine/kv/index_feed.hpp"

#include <algorithm>
#include <cstddef>

namespace troupe::engine {

namespace {

/// Changes that make a flush worth while before the timer.
constexpr std::uint64_t many = 512;

} // namespace

index_feed::index_feed(options how) : options_{how} {}

void index_feed::attach(hub_id hub) { subscribers_[hub].wants_snapshot = true; }

void index_feed::detach(hub_id hub) { subscribers_.erase(hub); }

void index_feed::arrived(hub_id hub) {
  if (const auto found = subscribers_.find(hub); found != subscribers_.end())
    found->second.on_its_way = false;
}

void index_feed::add(std::vector<kv_event> events) {
  if (events.empty())
    return;
  if (events.front().number != last_ + 1)
    kept_.clear(); // the pool dropped some: nobody can go on from before
  last_ = events.back().number;
  kept_.insert(kept_.end(), events.begin(), events.end());
  while (kept_.size() > options_.events_kept)
    kept_.pop_front();
}

bool index_feed::urgent() const noexcept { return last_ - flushed_ >= many; }

index_feed::reports index_feed::take(const std::function<std::vector<block_hash>()>& all) {
  reports out;
  flushed_ = last_;
  const auto first_kept = last_ + 1 - kept_.size();
  for (auto& [hub, subscriber] : subscribers_) {
    const bool current = !subscriber.wants_snapshot && subscriber.through == last_;
    if (subscriber.on_its_way || current)
      continue;
    kv_index_report report{.replica = options_.replica,
                           .incarnation = options_.incarnation,
                           .through = last_,
                           .stored = {},
                           .events = {}};
    report.snapshot = subscriber.wants_snapshot || subscriber.through + 1 < first_kept;
    if (report.snapshot)
      report.stored = all();
    else
      report.events.assign(kept_.begin() +
                               static_cast<std::ptrdiff_t>(subscriber.through + 1 - first_kept),
                           kept_.end());
    subscriber = {.through = last_, .wants_snapshot = false, .on_its_way = true};
    out.emplace_back(hub, std::move(report));
  }
  return out;
}

} // namespace troupe::engine
