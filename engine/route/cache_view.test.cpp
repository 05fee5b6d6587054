#include "engine/route/cache_view.hpp"

#include "engine/kv/index_feed.hpp"
#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <deque>
#include <map>
#include <set>

using namespace troupe;
using namespace troupe::engine;

namespace {

constexpr time_point start{};
constexpr replica_id here{3};

cache_view::options options() {
  return {.blocks_max = 10'000, .snapshot_retry = std::chrono::seconds{2}};
}

kv_event stored(std::uint64_t number, std::uint64_t hash) {
  return {.number = number, .what = kv_event::kind::stored, .hash = block_hash{hash}, .parent = {}};
}

kv_index_report events(std::vector<kv_event> list) {
  const auto through = list.back().number;
  return {.replica = here, .through = through, .stored = {}, .events = std::move(list)};
}

kv_index_report snapshot(std::uint64_t through, std::vector<block_hash> all) {
  return {.replica = here,
          .through = through,
          .snapshot = true,
          .stored = std::move(all),
          .events = {}};
}

std::uint32_t depth(cache_view& view, std::uint64_t hash, time_point now = start) {
  const std::vector<block_hash> chain{block_hash{hash}};
  std::vector<depth_range> ranges(view.members());
  view.bound(chain, ranges, now);
  return view.settle(chain, 0, ranges.at(0));
}

} // namespace

TEST_CASE("a replica that joins is asked for a snapshot, again when none comes", "[route][index]") {
  cache_view view{options()};
  view.add(here, 0, start);
  CHECK(view.take_wanted() == std::vector{here});
  CHECK(view.take_wanted().empty());
  CHECK(view.next_deadline() == start + std::chrono::seconds{2});
  view.expire(start + std::chrono::seconds{1});
  CHECK(view.take_wanted().empty());
  view.expire(start + std::chrono::seconds{2});
  CHECK(view.take_wanted() == std::vector{here});
  view.take(snapshot(4, {block_hash{7}}), start);
  CHECK(depth(view, 7) == 1);
  CHECK_FALSE(view.next_deadline());
}

TEST_CASE("a hole in the numbers wants a snapshot and keeps what was known", "[route][index]") {
  cache_view view{options()};
  view.add(here, 0, start);
  view.take(snapshot(4, {block_hash{7}}), start);
  (void)view.take_wanted();
  view.take(events({stored(5, 8)}), start);
  CHECK(depth(view, 8) == 1);
  view.take(events({stored(7, 9)}), start);
  CHECK(view.gaps() == 1);
  CHECK(view.take_wanted() == std::vector{here});
  CHECK(depth(view, 7) == 1);
  CHECK(depth(view, 9) == 0);
  view.take(events({stored(6, 10)}), start); // too late: the snapshot will know
  CHECK(depth(view, 10) == 0);
  view.take(snapshot(3, {}), start); // sent before the hole
  CHECK(depth(view, 7) == 1);
  view.take(snapshot(8, {block_hash{9}}), start);
  CHECK(depth(view, 7) == 0);
  CHECK(depth(view, 9) == 1);
  view.take(events({stored(8, 30), stored(9, 31)}), start);
  CHECK(depth(view, 30) == 0);
  CHECK(depth(view, 31) == 1);
}

TEST_CASE("events that were dropped at their source are a hole too", "[route][index]") {
  cache_view view{options()};
  view.add(here, 0, start);
  view.take(snapshot(4, {}), start);
  view.take({.replica = here, .through = 6, .stored = {}, .events = {}}, start);
  CHECK(view.gaps() == 1);
}

TEST_CASE("what another life of the replica says is ignored", "[route][index]") {
  cache_view view{options()};
  view.add(here, 2, start);
  view.take(snapshot(4, {block_hash{7}}), start);
  CHECK(depth(view, 7) == 0);
  view.remove(here);
  view.take(snapshot(4, {block_hash{7}}), start);
  CHECK(view.size() == 0);
  CHECK(view.add(replica_id{8}, 0, start) == 0); // the number is free again
}

TEST_CASE("what was sent is expected for a while", "[route][index]") {
  cache_view view{options()};
  view.add(here, 0, start);
  view.expect(here, std::vector{block_hash{7}}, start);
  CHECK(depth(view, 7, start + std::chrono::seconds{4}) == 1);
  CHECK(depth(view, 7, start + std::chrono::seconds{6}) == 1);
  CHECK(depth(view, 7, start + std::chrono::seconds{12}) == 0);
  view.expect(here, std::vector{block_hash{8}}, start + std::chrono::seconds{12});
  CHECK(depth(view, 8, start + std::chrono::seconds{60}) == 0);
}

namespace {

/// A pool's index that changes at random, its feed, and a wire that loses reports.
class rough_feed {
public:
  explicit rough_feed(std::uint64_t seed) : random_{seed} { view_.add(here, 1, now_); }

  void step() {
    now_ += std::chrono::milliseconds{random_.below(400)};
    const auto dice = random_.below(100);
    if (dice < 60)
      change();
    else if (dice < 80)
      send();
    else
      carry();
    view_.expire(now_);
    for (const auto replica : view_.take_wanted()) {
      REQUIRE(replica == here);
      feed_.attach(hub_id{1});
    }
  }

  /// Everything that is on its way arrives, and nothing is lost any more.
  void settle() {
    for (int i = 0; i < 3; ++i) {
      now_ += std::chrono::seconds{3};
      view_.expire(now_);
      if (!view_.take_wanted().empty())
        feed_.attach(hub_id{1});
      feed_.arrived(hub_id{1});
      send();
      while (!wire_.empty())
        deliver();
    }
  }

  void check() {
    REQUIRE(view_.size() == truth_.size());
    for (const auto hash : truth_)
      REQUIRE(depth(view_, value(hash), now_) == 1);
    const auto known = view_.known(here);
    REQUIRE(std::set(known.begin(), known.end()) == truth_);
  }

  [[nodiscard]] std::uint64_t gaps() const { return view_.gaps(); }

private:
  void change() {
    std::vector<kv_event> events;
    for (auto n = random_.below(40); n > 0; --n) {
      kv_event event{.number = ++number_, .hash = block_hash{1 + random_.below(50)}, .parent = {}};
      if (random_.below(200) == 0) {
        event.what = kv_event::kind::cleared;
        truth_.clear();
      } else if (truth_.erase(event.hash) != 0) {
        event.what = kv_event::kind::removed;
      } else {
        truth_.insert(event.hash);
      }
      events.push_back(event);
    }
    if (random_.below(30) == 0 && events.size() > 1)
      events.erase(events.begin(), events.end() - 1); // the pool dropped all but the newest
    feed_.add(std::move(events));
  }

  void send() {
    if (number_ == 0)
      return;
    auto reports = feed_.take([&] {
      // A snapshot speaks for every event there was, those included that the pool dropped.
      return std::vector<block_hash>{truth_.begin(), truth_.end()};
    });
    for (auto& [hub, report] : reports) {
      REQUIRE(report.events.size() <= 64);
      wire_.push_back(std::move(report));
    }
  }

  void carry() {
    if (wire_.empty())
      return;
    if (random_.below(4) == 0)
      wire_.pop_front();
    else
      deliver();
    feed_.arrived(hub_id{1});
  }

  void deliver() {
    view_.take(wire_.front(), now_);
    wire_.pop_front();
  }

  splitmix64 random_;
  time_point now_ = start;
  std::uint64_t number_ = 0;
  std::set<block_hash> truth_;
  index_feed feed_{{.replica = here, .incarnation = 1, .events_kept = 64}};
  cache_view view_{options()};
  std::deque<kv_index_report> wire_;
};

} // namespace

TEST_CASE("whatever is lost on the way, the view becomes the index", "[route][index][property]") {
  std::uint64_t gaps = 0;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    INFO("seed " << seed);
    rough_feed feed{seed};
    for (int i = 0; i < 400; ++i)
      feed.step();
    feed.settle();
    feed.check();
    gaps += feed.gaps();
  }
  CHECK(gaps > 100);
}
