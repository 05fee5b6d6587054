#pragma once

#include "engine/kv/messages.hpp"

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <span>
#include <utility>
#include <vector>

namespace troupe::engine {

/// How the numbered events of one prefix index reach the routers that are attached. A pure state
/// machine between a block_pool and its subscribers. Memory is bounded by the events kept: each
/// subscriber has at most one report on its way, and one that falls further behind than what is
/// kept gets a snapshot instead, as does one that is new or asks for it.
class index_feed {
public:
  struct options {
    replica_id replica{};
    std::uint64_t incarnation = 0;
    /// Events kept for subscribers that are behind; also the most of one report.
    std::size_t events_kept = 1024;
  };
  using reports = std::vector<std::pair<hub_id, kv_index_report>>;

  explicit index_feed(options how);

  /// The next report to `hub` is a snapshot. Known or not, it counts as attached from here on.
  void attach(hub_id hub);
  void detach(hub_id hub);
  /// The report sent last to `hub` has arrived: the next one may go.
  void arrived(hub_id hub);
  /// Takes the events of the pool since the last call, in order.
  void add(std::vector<kv_event> events);
  /// Enough has changed that the next flush should not wait for the timer.
  [[nodiscard]] bool urgent() const noexcept;
  /// The reports that may go now, in the order of hubs.
  /// @param all lists the whole index as of the last event added; called only for a snapshot
  [[nodiscard]] reports take(const std::function<std::vector<block_hash>()>& all);

private:
  struct subscriber {
    std::uint64_t through = 0;
    bool wants_snapshot = true;
    bool on_its_way = false;
  };

  options options_;
  std::map<hub_id, subscriber> subscribers_;
  /// The last events, without gaps; the newest has number `last_`.
  std::deque<kv_event> kept_;
  std::uint64_t last_ = 0;
  std::uint64_t flushed_ = 0;
};

} // namespace troupe::engine
