#include "engine/route/replica_table.hpp"

#include <catch2/catch.hpp>

#include <map>
#include <vector>

using namespace troupe;
using namespace troupe::engine;

namespace {

void add_three(replica_table& table) {
  for (std::uint32_t id = 1; id <= 3; ++id)
    table.add(replica_id{id}, "bard");
  table.add(replica_id{9}, "other");
}

std::vector<std::uint32_t> choices(replica_table& table, int count) {
  std::vector<std::uint32_t> out;
  for (int i = 0; i < count; ++i) {
    const auto chosen = table.choose("bard");
    REQUIRE(chosen);
    table.sent(*chosen, 10);
    out.push_back(value(*chosen));
  }
  return out;
}

} // namespace

TEST_CASE("policies have names", "[route]") {
  CHECK(to_string(routing_policy::round_robin) == "round_robin");
  CHECK(to_string(routing_policy::least_loaded) == "least_loaded");
}

TEST_CASE("round robin takes each in turn, also when one leaves", "[route]") {
  replica_table table{routing_policy::round_robin};
  add_three(table);
  CHECK(choices(table, 5) == std::vector<std::uint32_t>{1, 2, 3, 1, 2});
  table.remove(replica_id{3});
  CHECK(choices(table, 3) == std::vector<std::uint32_t>{1, 2, 1});
}

TEST_CASE("least loaded counts what was sent and ended since the last report", "[route]") {
  replica_table table{routing_policy::least_loaded};
  add_three(table);
  table.report(replica_id{1}, {.running = 4, .waiting = 1, .free_blocks = 10});
  table.report(replica_id{2}, {.running = 2, .waiting = 0, .free_blocks = 1});
  table.report(replica_id{3}, {.running = 2, .waiting = 0, .free_blocks = 9});
  CHECK(choices(table, 6) == std::vector<std::uint32_t>{3, 2, 3, 2, 3, 2});
  table.ended(replica_id{1});
  CHECK(choices(table, 1) == std::vector<std::uint32_t>{1});
  table.report(replica_id{3}, {.running = 0, .waiting = 0, .free_blocks = 9});
  table.ended(replica_id{3}); // the report knew of it already
  CHECK(choices(table, 2) == std::vector<std::uint32_t>{3, 3});
}

TEST_CASE("among equal counts the shorter prompts win", "[route]") {
  replica_table table{routing_policy::least_loaded};
  add_three(table);
  table.sent(replica_id{1}, 4000);
  table.sent(replica_id{2}, 10);
  table.sent(replica_id{3}, 4000);
  CHECK(choices(table, 1) == std::vector<std::uint32_t>{2});
}

TEST_CASE("a burst before any report is spread", "[route]") {
  replica_table table{routing_policy::least_loaded};
  add_three(table);
  std::map<std::uint32_t, int> counts;
  for (const auto id : choices(table, 9))
    ++counts[id];
  CHECK(counts == std::map<std::uint32_t, int>{{1, 3}, {2, 3}, {3, 3}});
}

TEST_CASE("a model without a replica is told from an unknown one", "[route]") {
  replica_table table{routing_policy::least_loaded};
  add_three(table);
  CHECK_FALSE(table.choose("nobody"));
  CHECK_FALSE(table.knows("nobody"));
  CHECK(table.choose("other") == replica_id{9});
  table.remove(replica_id{9});
  CHECK_FALSE(table.choose("other"));
  CHECK(table.knows("other"));
  // What is said of a replica that left changes nothing.
  table.sent(replica_id{9}, 1);
  table.ended(replica_id{9});
  table.report(replica_id{9}, {});
  CHECK_FALSE(table.choose("other"));
}
