#include "engine/kv/index_feed.hpp"

#include "engine/kv/block_pool.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::engine;

namespace {

constexpr hub_id one{1};
constexpr hub_id two{2};

std::vector<kv_event> numbered(std::uint64_t first, std::uint64_t last) {
  std::vector<kv_event> events;
  for (auto n = first; n <= last; ++n)
    events.push_back({.number = n, .hash = block_hash{n}, .parent = {}});
  return events;
}

std::vector<block_hash> whole() { return {block_hash{42}}; }

index_feed a_feed() {
  return index_feed{{.replica = replica_id{7}, .incarnation = 9, .events_kept = 10}};
}

} // namespace

TEST_CASE("a subscriber gets a snapshot first, then changes", "[kv][feed]") {
  auto feed = a_feed();
  feed.add(numbered(1, 3));
  CHECK(feed.take(whole).empty());
  feed.attach(one);
  auto reports = feed.take(whole);
  REQUIRE(reports.size() == 1);
  CHECK(reports[0].first == one);
  CHECK(reports[0].second.snapshot);
  CHECK(reports[0].second.replica == replica_id{7});
  CHECK(reports[0].second.incarnation == 9);
  CHECK(reports[0].second.through == 3);
  CHECK(reports[0].second.stored == whole());
  feed.arrived(one);
  CHECK(feed.take(whole).empty()); // nothing changed
  feed.add(numbered(4, 5));
  reports = feed.take(whole);
  REQUIRE(reports.size() == 1);
  CHECK_FALSE(reports[0].second.snapshot);
  REQUIRE(reports[0].second.events.size() == 2);
  CHECK(reports[0].second.events[0].number == 4);
  CHECK(reports[0].second.through == 5);
}

TEST_CASE("one report at a time, and a snapshot for who falls behind", "[kv][feed]") {
  auto feed = a_feed();
  feed.attach(one);
  feed.attach(two);
  CHECK(feed.take(whole).size() == 2);
  feed.arrived(two);
  feed.add(numbered(1, 8));
  CHECK(feed.take(whole).size() == 1);
  feed.arrived(two);
  feed.add(numbered(9, 16));
  auto reports = feed.take(whole);
  REQUIRE(reports.size() == 1);
  CHECK(reports[0].second.events.size() == 8);
  feed.arrived(one); // it is at 0 and 7 to 16 are kept
  reports = feed.take(whole);
  REQUIRE(reports.size() == 1);
  CHECK(reports[0].second.snapshot);
  CHECK(reports[0].second.through == 16);
}

TEST_CASE("events that the pool dropped lead to a snapshot", "[kv][feed]") {
  auto feed = a_feed();
  feed.attach(one);
  (void)feed.take(whole);
  feed.arrived(one);
  feed.add(numbered(1, 2));
  feed.add(numbered(6, 7));
  const auto reports = feed.take(whole);
  REQUIRE(reports.size() == 1);
  CHECK(reports[0].second.snapshot);
  CHECK(reports[0].second.through == 7);
}

TEST_CASE("who asks again gets a snapshot, who left gets nothing", "[kv][feed]") {
  auto feed = a_feed();
  feed.attach(one);
  (void)feed.take(whole);
  feed.attach(one);
  CHECK(feed.take(whole).empty()); // the first is still on its way
  feed.arrived(one);
  REQUIRE(feed.take(whole).size() == 1);
  feed.detach(one);
  feed.arrived(one);
  feed.add(numbered(1, 1));
  CHECK(feed.take(whole).empty());
}

TEST_CASE("many changes do not wait for the timer", "[kv][feed]") {
  auto feed = a_feed();
  feed.add(numbered(1, 511));
  CHECK_FALSE(feed.urgent());
  feed.add(numbered(512, 512));
  CHECK(feed.urgent());
  (void)feed.take(whole);
  CHECK_FALSE(feed.urgent());
}

TEST_CASE("a pool lists each hash of its index once", "[kv][feed]") {
  block_pool pool{4, 1};
  const auto blocks = pool.want({3}).granted;
  pool.commit({.step = step_id{1},
               .blocks = {{blocks[0], block_hash{5}, {}, {1}},
                          {blocks[1], block_hash{5}, {}, {1}},
                          {blocks[2], block_hash{6}, {}, {2}}}});
  auto all = pool.indexed();
  std::sort(all.begin(), all.end());
  CHECK(all == std::vector{block_hash{5}, block_hash{6}});
}
