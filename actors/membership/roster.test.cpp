#include "actors/membership/roster.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::actors;
using namespace std::chrono_literals;

namespace {

const net::address front_at{"127.0.0.1", 7600};
const net::address a_at{"127.0.0.1", 7601};
const net::address b_at{"127.0.0.1", 7602};
const error fenced{errc::peer_down, "node 'a' was declared dead by node 'front'"};

/// A roster of the node `self` in a file of front, a and b.
struct world {
  explicit world(const std::string& self = "a", std::uint64_t incarnation = 7)
      : table{{.self = {self, self == "front" ? front_at : a_at},
               .incarnation = incarnation,
               .nodes = {{"front", front_at}, {"a", a_at}, {"b", b_at}}}} {
    own.name = self;
  }

  member_view of(const std::string& name) {
    for (auto& member : table.view().members)
      if (member.name == name)
        return member;
    FAIL("no member " << name);
    return {};
  }
  bool knows(const std::string& name) {
    const auto all = table.view().members;
    return std::any_of(all.begin(), all.end(), [&](const auto& m) { return m.name == name; });
  }
  void show(const std::string& name, std::uint64_t incarnation = 9) {
    node_card card;
    card.name = name;
    card.state = "up";
    card.incarnation = incarnation;
    table.take(card, own, 0);
  }

  roster table;
  node_card own;
  time_point now{1h};
};

} // namespace

TEST_CASE("all nodes of the file but oneself are dialled, with growing pauses") {
  world w;
  CHECK(w.table.due(w.now) == std::vector{b_at, front_at});
  CHECK(w.table.due(w.now).empty());
  w.table.dialed(front_at, {errc::peer_down, "nobody listens"}, w.now);
  CHECK(w.of("front").state_text() == "down");
  CHECK(w.of("front").note == "nobody listens");
  CHECK(w.of("b").state_text() == "connecting");
  std::chrono::milliseconds waited{0};
  std::vector<std::int64_t> pauses;
  for (auto begin = w.now; pauses.size() < 8;) {
    w.now += 1ms;
    if (w.table.due(w.now).empty())
      continue;
    pauses.push_back(std::chrono::duration_cast<std::chrono::milliseconds>(w.now - begin).count());
    w.table.dialed(front_at, {errc::peer_down, "nobody listens"}, w.now);
    begin = w.now;
  }
  CHECK(pauses == std::vector<std::int64_t>{50, 100, 200, 400, 800, 1600, 2000, 2000});
}

TEST_CASE("a node goes down and comes back") {
  world w;
  (void)w.table.due(w.now);
  w.table.came_up("front", front_at, w.now);
  w.table.dialed(front_at, {errc::none, ""}, w.now);
  CHECK(w.of("front").state_text() == "up");
  w.show("front");
  w.now += 3s;
  w.table.went_down("front", {errc::timed_out, "no sign of life"}, w.now);
  CHECK(w.of("front").state_text() == "down");
  CHECK(w.of("front").since == w.now);
  CHECK(w.of("front").note == "no sign of life");
  CHECK(w.of("front").card);
  CHECK(w.table.due(w.now + 50ms) == std::vector{front_at});
  w.table.came_up("front", front_at, w.now + 1s);
  w.table.dialed(front_at, {errc::none, ""}, w.now + 1s);
  CHECK(w.of("front").up());
  CHECK_FALSE(w.of("front").card);
  CHECK(w.table.due(w.now + 1h).empty());
  w.table.went_down("front", {errc::draining, "drained"}, w.now + 2h);
  CHECK(w.of("front").note == "has left");
}

TEST_CASE("a node that joins is a member once it shows a card; a client never is") {
  world w;
  w.table.came_up("c", {"127.0.0.1", 7603}, w.now);
  w.table.came_up("guest", {}, w.now);
  CHECK_FALSE(w.knows("c"));
  w.show("c");
  CHECK(w.of("c").up());
  w.table.went_down("guest", {errc::peer_down, ""}, w.now);
  w.table.went_down("c", {errc::peer_down, "gone"}, w.now);
  CHECK(w.of("c").state_text() == "down");
  CHECK_FALSE(w.knows("guest"));
  // Dialled for a while, then forgotten.
  CHECK_FALSE(w.table.due(w.now + 1min).empty());
  w.table.dialed({"127.0.0.1", 7603}, {errc::peer_down, "gone"}, w.now + 1min);
  (void)w.table.due(w.now + 11min);
  CHECK_FALSE(w.knows("c"));
  CHECK(w.knows("b"));
}

TEST_CASE("what others have heard of is dialled") {
  world w;
  (void)w.table.due(w.now);
  w.table.heard("c", {"127.0.0.1", 7603}, w.now);
  w.table.heard("a", {"127.0.0.1", 7604}, w.now);
  w.table.heard("guest", {}, w.now);
  CHECK(w.table.due(w.now) == std::vector{net::address{"127.0.0.1", 7603}});
}

TEST_CASE("a refusal is shown until it is mended") {
  world w;
  (void)w.table.due(w.now);
  const error why{errc::conflict, "different configs, in: models.bard"};
  w.table.refused("front", front_at, why, w.now);
  w.table.dialed(front_at, {errc::conflict, "127.0.0.1:7600: different"}, w.now);
  CHECK(w.of("front").state_text() == "refused");
  CHECK(w.of("front").note == why.note);
  // A hello that told no name is known by its address.
  w.table.refused("", b_at, {errc::unauthorized, "different secrets"}, w.now);
  CHECK(w.of("b").note == "different secrets");
  w.now += 100ms;
  CHECK(w.table.due(w.now) == std::vector{front_at});
  w.table.dialed(front_at, {errc::peer_down, "nobody listens"}, w.now);
  CHECK(w.of("front").state_text() == "down");
  CHECK_FALSE(w.table.view().end);
}

TEST_CASE("who was declared dead and lives is forgiven by both, and nobody ends") {
  for (const std::string self : {"a", "front"}) {
    world w{self};
    const std::string other = self == "a" ? "front" : "a";
    const auto where = self == "a" ? front_at : a_at;
    w.table.refused(other, where, {errc::unauthorized, "different secrets"}, w.now);
    CHECK_FALSE(w.table.forgives(other));
    CHECK(w.of(other).state_text() == "refused");
    w.table.came_up(other, where, w.now);
    w.table.went_down(other, fenced, w.now);
    w.table.refused(other, where, fenced, w.now);
    CHECK(w.table.forgives(other));
    CHECK_FALSE(w.table.view().end);
    CHECK(w.of(other).state_text() == "down");
    CHECK(w.of(other).note.find("while it lived") != std::string::npos);
    w.table.came_up(other, where, w.now);
    CHECK_FALSE(w.table.forgives(other));
    CHECK_FALSE(w.table.forgives("stranger"));
  }
}

TEST_CASE("of two processes that drew the same id one ends") {
  for (const std::uint64_t other : {6, 8}) {
    world w;
    w.own.replicas.resize(1);
    w.own.replicas[0].status.replica = replica_id{77};
    w.table.came_up("b", b_at, w.now);
    node_card card;
    card.name = "b";
    card.incarnation = other;
    card.replicas.resize(1);
    card.replicas[0].status.replica = replica_id{78};
    w.table.take(card, w.own, 0);
    CHECK_FALSE(w.table.view().end);
    card.replicas[0].status.replica = replica_id{77};
    w.table.take(card, w.own, 0);
    CHECK(w.table.view().end.has_value() == (other == 6));
  }
}

TEST_CASE("clocks that differ are said") {
  world w;
  w.table.came_up("b", b_at, w.now);
  node_card card;
  card.name = "b";
  card.clock_ms = 100'000;
  w.table.take(card, w.own, 96'000);
  CHECK(w.of("b").note.empty());
  w.table.take(card, w.own, 0);
  CHECK(w.of("b").note.find("100 s") != std::string::npos);
}
