#include "actors/membership/ids.hpp"

#include <catch2/catch.hpp>

#include <set>

using namespace troupe;
using namespace troupe::actors;

TEST_CASE("a process that is alone counts") {
  id_source ids{0};
  CHECK(value(ids.next_hub()) == 1);
  CHECK(value(ids.next_hub()) == 2);
  CHECK(value(ids.next_replica()) == 0);
  CHECK(value(ids.next_replica()) == 1);
}

TEST_CASE("ids are the incarnation's own, and hubs have 24 bits") {
  std::set<replica_id> replicas;
  std::set<hub_id> hubs;
  for (std::uint64_t start = 1; start <= 50; ++start) {
    id_source ids{start};
    id_source again{start};
    for (int i = 0; i < 8; ++i) {
      const auto hub = ids.next_hub();
      CHECK(hub == again.next_hub());
      CHECK(value(hub) > 0);
      CHECK(value(hub) < (1U << 24));
      hubs.insert(hub);
      replicas.insert(ids.next_replica());
    }
  }
  CHECK(hubs.size() == 400);
  CHECK(replicas.size() == 400);
}
