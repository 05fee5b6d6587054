#include "engine/route/router.hpp"

#include "engine/route/test_requests.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <map>

using namespace troupe;
using namespace troupe::engine;
using namespace troupe::engine::test;
using namespace std::chrono_literals;

namespace {

/// A router of replicas 1 and 2, with what it wants sent.
struct desk {
  explicit desk(router_config config = {.hub = hub_id{1}}) : core{config} {
    core.replica_up(facts(1), now);
    core.replica_up(facts(2), now);
    act();
  }

  router_actions act() {
    auto actions = core.take_actions();
    for (const auto& d : actions.dispatches)
      sent[d.request.id] = d;
    return actions;
  }

  /// Submits; the replica has not answered yet.
  request_id open(std::chrono::milliseconds timeout = 0ms) {
    const auto id = core.submit(a_request(timeout), now);
    REQUIRE(id);
    act();
    return *id;
  }

  void accept(request_id id) {
    core.accepted(id, sent.at(id).replica, sent.at(id).request.attempt, now);
  }

  void refuse(request_id id, errc code) {
    core.rejected(id, sent.at(id).replica, sent.at(id).request.attempt, {code, "no"}, now);
  }

  request_id open_and_accept(std::chrono::milliseconds timeout = 0ms) {
    const auto id = open(timeout);
    accept(id);
    act();
    return id;
  }

  void give(request_id id, std::vector<token_id> ids, finish_reason finish = finish_reason::none) {
    const auto& at = sent.at(id);
    token_chunk chunk{.request = id,
                      .stream = at.request.sink.stream,
                      .attempt = at.request.attempt,
                      .offset = offset[id],
                      .ids = std::move(ids),
                      .finish = finish,
                      .note = ""};
    offset[id] += static_cast<std::uint32_t>(chunk.ids.size());
    core.tokens({at.replica, {std::move(chunk)}}, now);
  }

  void down(replica_id replica, end_cause cause = end_cause::died) {
    core.replica_down(replica, gone, cause, now);
  }

  router core;
  time_point now = start;
  std::map<request_id, router_actions::dispatch> sent;
  std::map<request_id, std::uint32_t> offset;
};

} // namespace

TEST_CASE("a submission is dispatched, accepted and answered once", "[route][router]") {
  desk d;
  const auto id = d.open();
  CHECK(d.sent.at(id).replica == replica_id{1});
  CHECK(d.sent.at(id).request.attempt == 1);
  d.accept(id);
  d.accept(id);
  auto actions = d.act();
  REQUIRE(actions.verdicts.size() == 1);
  CHECK(actions.verdicts[0].id == id);
  CHECK(actions.verdicts[0].outcome == replica_id{1});
  d.give(id, {10, 11});
  d.give(id, {12}, finish_reason::stop);
  actions = d.act();
  REQUIRE(actions.deliveries.size() == 2);
  CHECK(actions.deliveries[1].finish == finish_reason::stop);
  CHECK(d.core.stats().hub.open == 0);
}

TEST_CASE("refusals at the door have their reasons", "[route][router]") {
  desk d{{.hub = hub_id{1}, .max_streams = 1}};
  auto unknown = a_request();
  unknown.model = "hamlet";
  CHECK(d.core.submit(unknown, start).error().code == errc::not_found);
  (void)d.open();
  CHECK(d.core.submit(a_request(), start).error().code == errc::busy);
  d.down(replica_id{1});
  d.down(replica_id{2});
  CHECK(d.core.submit(a_request(), start).error().code == errc::busy);
  CHECK(d.core.drain() == 1);
  CHECK(d.core.submit(a_request(), start).error().code == errc::draining);
}

TEST_CASE("a busy replica is passed over, and only when all are busy is the request refused",
          "[route][router]") {
  desk d;
  const auto id = d.open();
  d.refuse(id, errc::busy);
  auto actions = d.act();
  REQUIRE(actions.dispatches.size() == 1);
  CHECK(actions.dispatches[0].replica == replica_id{2});
  CHECK(actions.dispatches[0].request.attempt == 2);
  CHECK(actions.verdicts.empty());
  d.core.accepted(id, replica_id{1}, 1, start); // what the first one says does not count any more
  CHECK(d.act().verdicts.empty());
  d.refuse(id, errc::busy);
  actions = d.act();
  CHECK(actions.dispatches.empty());
  REQUIRE(actions.verdicts.size() == 1);
  CHECK(actions.verdicts[0].outcome.error().code == errc::busy);
  CHECK(actions.deliveries.empty());
  CHECK(d.core.stats().hub.open == 0);
  CHECK(d.core.stats().migrations_exact == 0);
}

TEST_CASE("an error of the request itself is not tried elsewhere", "[route][router]") {
  desk d;
  const auto id = d.open();
  d.refuse(id, errc::invalid_argument);
  const auto actions = d.act();
  CHECK(actions.dispatches.empty());
  CHECK(actions.verdicts.at(0).outcome.error().code == errc::invalid_argument);
}

TEST_CASE("a stream goes on elsewhere when its replica dies", "[route][router]") {
  desk d;
  const auto id = d.open_and_accept();
  d.give(id, {10, 11});
  d.act();
  d.down(replica_id{1});
  auto actions = d.act();
  REQUIRE(actions.dispatches.size() == 1);
  CHECK(actions.cancels.size() == 1); // it may only be slow
  CHECK(actions.deliveries.empty());
  const auto& again = actions.dispatches[0].request;
  CHECK(actions.dispatches[0].replica == replica_id{2});
  CHECK(again.attempt == 2);
  CHECK(again.delivered == std::vector<token_id>{10, 11});
  CHECK(again.prompt == a_request().prompt);
  CHECK(again.priority == -3);
  CHECK(again.cache_salt == "salt");
  CHECK(again.sampling == a_request().sampling);
  // The old replica was only slow: nothing it says counts.
  const token_chunk late{.request = id,
                         .stream = again.sink.stream,
                         .attempt = 1,
                         .offset = 2,
                         .ids = {99},
                         .note = ""};
  d.core.tokens({replica_id{1}, {late}}, start);
  CHECK(d.act().deliveries.empty());
  d.accept(id);
  CHECK(d.act().verdicts.empty()); // the submitter knows already
  CHECK(d.core.stats().migrations_exact == 1);
  d.give(id, {12}, finish_reason::length);
  CHECK(d.act().deliveries.at(0).ids == std::vector<token_id>{12});
}

TEST_CASE("a stream that was not accepted yet is resubmitted too", "[route][router]") {
  desk d;
  const auto id = d.open();
  d.refuse(id, errc::peer_down); // the death itself follows
  CHECK(d.act().verdicts.empty());
  d.down(replica_id{1});
  CHECK(d.act().dispatches.at(0).replica == replica_id{2});
  d.accept(id);
  CHECK(d.act().verdicts.at(0).outcome == replica_id{2});
}

TEST_CASE("equal numerics are preferred, and what is not exact is counted", "[route][router]") {
  desk d;
  d.core.replica_up(facts(3, 2), start);
  d.core.replica_up(facts(4, 1), start);
  d.core.load(replica_id{4}, {.running = 60});
  const auto id = d.open_and_accept();
  REQUIRE(d.sent.at(id).replica == replica_id{1});
  d.give(id, {10});
  d.core.load(replica_id{2}, {.running = 70});
  d.down(replica_id{1});
  d.act();
  CHECK(d.sent.at(id).replica == replica_id{4});
  d.accept(id);
  d.down(replica_id{4});
  d.act();
  CHECK(d.sent.at(id).replica == replica_id{2});
  d.accept(id);
  d.give(id, {11});
  d.down(replica_id{2});
  d.act();
  CHECK(d.sent.at(id).replica == replica_id{3});
  CHECK(d.core.stats().migrations_exact == 2);
  CHECK(d.core.stats().migrations_inexact == 0);
  d.accept(id);
  CHECK(d.core.stats().migrations_inexact == 1);
}

TEST_CASE("numerics that are not batch-invariant are never exact", "[route][router]") {
  desk d{{.hub = hub_id{1}}};
  d.down(replica_id{1});
  d.down(replica_id{2});
  auto loose = facts(5);
  loose.batch_invariant = false;
  d.core.replica_up(loose, start);
  const auto id = d.open_and_accept();
  d.give(id, {10});
  loose.id = replica_id{6};
  d.core.replica_up(loose, start);
  d.down(replica_id{5});
  d.act();
  d.accept(id);
  CHECK(d.core.stats().migrations_inexact == 1);
  // Without a token sent nobody can tell.
  const auto fresh = d.open_and_accept();
  loose.id = replica_id{7};
  d.core.replica_up(loose, start);
  d.give(id, {11});
  d.down(replica_id{6});
  d.act();
  d.accept(id);
  d.accept(fresh);
  CHECK(d.core.stats().migrations_inexact == 2);
  CHECK(d.core.stats().migrations_exact == 1);
}

TEST_CASE("without a replica a stream waits for one, and not for ever", "[route][router]") {
  desk d{{.hub = hub_id{1}, .resume_limit = 30s}};
  const auto id = d.open_and_accept();
  const auto other = d.open();
  d.give(id, {10});
  d.down(replica_id{1});
  auto actions = d.act();
  CHECK(actions.deliveries.size() == 1);
  d.accept(id);
  d.down(replica_id{2});
  actions = d.act();
  CHECK(d.core.stats().parked == 2);
  CHECK(actions.verdicts.empty());
  CHECK(d.core.next_deadline() == start + 30s);
  SECTION("the same replica comes back") {
    d.now += 29s;
    d.core.expire(d.now);
    auto back = facts(1);
    back.incarnation = 2;
    d.core.replica_up(back, d.now);
    actions = d.act();
    CHECK(actions.dispatches.size() == 2);
    CHECK(d.core.stats().parked == 0);
    CHECK_FALSE(d.core.next_deadline());
    CHECK(d.sent.at(id).request.delivered == std::vector<token_id>{10});
  }
  SECTION("nobody comes") {
    d.now += 30s;
    d.core.expire(d.now);
    actions = d.act();
    REQUIRE(actions.deliveries.size() == 1);
    CHECK(actions.deliveries[0].finish == finish_reason::error);
    CHECK(actions.deliveries[0].why == errc::peer_down);
    CHECK(actions.deliveries[0].offset == 1);
    CHECK(actions.deliveries[0].note.find("30 s") != std::string::npos);
    REQUIRE(actions.verdicts.size() == 1);
    CHECK(actions.verdicts[0].id == other);
    CHECK(actions.verdicts[0].outcome.error().code == errc::peer_down);
    CHECK(d.core.stats().hub.open == 0);
  }
}

TEST_CASE("a new request waits at the door while a replica is expected back", "[route][router]") {
  desk d{{.hub = hub_id{1}, .max_streams = 2, .resume_limit = 30s}};
  d.down(replica_id{1});
  d.down(replica_id{2});
  d.now += 10s;
  const auto first = d.open();
  const auto second = d.open(5s);
  CHECK(d.sent.empty());
  CHECK(d.core.stats().parked == 2);
  CHECK(d.core.submit(a_request(), d.now).error().code == errc::busy); // no more than max_streams
  CHECK(d.core.next_deadline() == start + 15s);
  d.now = start + 15s;
  d.core.expire(d.now);
  auto actions = d.act();
  REQUIRE(actions.verdicts.size() == 1);
  CHECK(actions.verdicts[0].id == second);
  CHECK(actions.verdicts[0].outcome.error().code == errc::timed_out);
  CHECK(d.core.next_deadline() == start + 30s);
  SECTION("it comes") {
    d.core.replica_up(facts(2), d.now);
    REQUIRE(d.act().dispatches.size() == 1);
    d.accept(first);
    CHECK(d.act().verdicts.at(0).outcome == replica_id{2});
    CHECK(d.core.stats().migrations_exact == 0); // nobody had it before
    CHECK_FALSE(d.core.next_deadline());
    d.give(first, {10}, finish_reason::stop);
    CHECK(d.act().deliveries.size() == 1);
  }
  SECTION("it comes and is busy") {
    d.core.replica_up(facts(2), d.now);
    d.act();
    d.refuse(first, errc::busy);
    CHECK(d.act().verdicts.empty());
    CHECK(d.core.stats().parked == 1);
    d.now += 50ms;
    d.core.expire(d.now);
    CHECK(d.act().dispatches.size() == 1);
  }
  SECTION("nobody comes") {
    d.now = start + 30s;
    d.core.expire(d.now);
    actions = d.act();
    REQUIRE(actions.verdicts.size() == 1);
    CHECK(actions.verdicts[0].outcome.error().code == errc::peer_down);
    CHECK(d.core.submit(a_request(), d.now).error().code == errc::peer_down);
    CHECK(d.core.stats().hub.open == 0);
  }
  SECTION("it is withdrawn") {
    d.core.cancel(first, d.now);
    CHECK(d.act().verdicts.at(0).outcome.error().code == errc::cancelled);
  }
}

TEST_CASE("nobody waits at the door for what was drained", "[route][router]") {
  desk d;
  d.down(replica_id{1}, end_cause::draining);
  d.down(replica_id{2}, end_cause::draining);
  CHECK(d.core.submit(a_request(), start).error().code == errc::peer_down);
  CHECK(d.core.stats().parked == 0);
}

TEST_CASE("a stream that lost its replica waits for a busy one", "[route][router]") {
  desk d{{.hub = hub_id{1}, .resume_limit = 30s, .busy_retry = 50ms}};
  const auto id = d.open_and_accept();
  d.give(id, {10});
  d.down(replica_id{1});
  d.act();
  d.refuse(id, errc::busy);
  CHECK(d.act().dispatches.empty());
  CHECK(d.core.next_deadline() == start + 50ms);
  d.now += 50ms;
  d.core.expire(d.now);
  CHECK(d.act().dispatches.at(0).replica == replica_id{2});
  d.accept(id);
  CHECK(d.core.stats().migrations_exact == 1);
  CHECK_FALSE(d.core.next_deadline());
}

TEST_CASE("what is left of the time-out travels, not the whole again", "[route][router]") {
  desk d;
  const auto id = d.open_and_accept(10s);
  CHECK(d.sent.at(id).request.timeout == 10s);
  d.now += 4s;
  d.down(replica_id{1});
  d.act();
  CHECK(d.sent.at(id).request.timeout == 6s);
  d.accept(id);
  d.down(replica_id{2});
  CHECK(d.core.next_deadline() == start + 10s);
  d.now = start + 10s;
  d.core.expire(d.now);
  const auto actions = d.act();
  CHECK(actions.deliveries.at(0).why == errc::timed_out);
}

TEST_CASE("a request that three replicas in a row died of is refused", "[route][router]") {
  desk d;
  d.core.replica_up(facts(3), start);
  d.core.replica_up(facts(4), start);
  const auto poison = d.open_and_accept();
  const bool progress = GENERATE(false, true);
  d.give(poison, {10});
  for (std::uint32_t id = 1; id <= 3; ++id) {
    d.down(replica_id{id});
    d.act();
    CHECK(d.sent.at(poison).replica == replica_id{id == 3 && !progress ? 3 : id + 1});
    if (id < 3)
      d.accept(poison);
    if (id == 2 && progress)
      d.give(poison, {11});
  }
  CHECK(d.core.stats().poisoned == (progress ? 0 : 1));
  CHECK(d.core.stats().hub.open == (progress ? 1 : 0));
}

TEST_CASE("a front that loses all replicas at once takes no request for poison",
          "[route][router]") {
  desk d;
  d.core.replica_up(facts(3), start);
  d.core.replica_up(facts(4), start);
  const auto id = d.open_and_accept();
  d.give(id, {10});
  // One after the other is found to be gone, each before it answered.
  for (std::uint32_t replica = 1; replica <= 4; ++replica) {
    d.down(replica_id{replica});
    d.act();
  }
  CHECK(d.core.stats().poisoned == 0);
  CHECK(d.core.stats().parked == 1);
  REQUIRE(d.core.next_deadline() == start + 500ms);
  d.now += 500ms;
  d.core.expire(d.now);
  CHECK(d.act().dispatches.empty());
  d.core.replica_up(facts(2), d.now);
  REQUIRE(d.act().dispatches.size() == 1);
  CHECK(d.sent.at(id).request.delivered == std::vector<token_id>{10});
  // Those that die in earnest still count.
  d.core.replica_up(facts(3), d.now);
  for (const auto replica : {replica_id{2}, replica_id{3}}) {
    CHECK(d.core.stats().poisoned == 0);
    CHECK(d.sent.at(id).replica == replica);
    d.accept(id);
    d.down(replica);
    d.act();
  }
  CHECK(d.core.stats().poisoned == 1);
}

TEST_CASE("the refusal of a poisonous request says why", "[route][router]") {
  desk d{{.hub = hub_id{1}, .deaths_max = 1}};
  const auto id = d.open();
  // Neither had accepted it, so each counts half.
  d.down(replica_id{1});
  CHECK(d.act().verdicts.empty());
  d.down(replica_id{2});
  const auto actions = d.act();
  REQUIRE(actions.verdicts.size() == 1);
  CHECK(actions.verdicts[0].id == id);
  CHECK(actions.verdicts[0].outcome.error().code == errc::limit_exceeded);
  CHECK(actions.verdicts[0].outcome.error().note.find(gone.note) != std::string::npos);
}

TEST_CASE("a drained replica gets nothing new and its streams move", "[route][router]") {
  desk d;
  const auto id = d.open_and_accept();
  d.give(id, {10});
  d.core.replica_draining(replica_id{1});
  for (int i = 0; i < 3; ++i)
    CHECK(d.sent.at(d.open()).replica == replica_id{2});
  d.give(id, {11});
  d.act();
  for (int i = 0; i < 5; ++i) // a drain is nobody's death
    d.core.replica_down(replica_id{1}, {errc::draining, "drained"}, end_cause::draining, start);
  auto actions = d.act();
  REQUIRE(actions.dispatches.size() == 1);
  CHECK(actions.cancels.at(0).replica == replica_id{1});
  CHECK(actions.dispatches[0].request.delivered == std::vector<token_id>{10, 11});
  CHECK(d.core.stats().poisoned == 0);
}

TEST_CASE("a stream cancelled while it moves ends", "[route][router]") {
  desk d;
  const auto id = d.open_and_accept();
  d.give(id, {10});
  SECTION("while parked") {
    d.down(replica_id{1});
    d.down(replica_id{2});
    d.act();
    d.core.cancel(id, start);
    const auto actions = d.act();
    CHECK(actions.deliveries.at(0).finish == finish_reason::abort);
    CHECK(actions.cancels.empty());
  }
  SECTION("before its replica dies") {
    d.core.cancel(id, start);
    CHECK(d.act().cancels.at(0).replica == replica_id{1});
    d.down(replica_id{1});
    const auto actions = d.act();
    CHECK(actions.deliveries.at(0).finish == finish_reason::abort);
    CHECK(actions.dispatches.empty());
  }
  SECTION("while the next replica is asked") {
    d.down(replica_id{1});
    d.act();
    d.core.cancel(id, start);
    CHECK(d.act().cancels.at(0).replica == replica_id{2});
    d.refuse(id, errc::busy);
    CHECK(d.act().deliveries.at(0).finish == finish_reason::abort);
  }
  CHECK(d.core.stats().hub.open == 0);
}

TEST_CASE("a forgotten stream is cancelled and never heard of again", "[route][router]") {
  desk d;
  const auto id = d.open_and_accept();
  d.core.forget(id);
  CHECK(d.act().cancels.size() == 1);
  d.give(id, {10});
  d.accept(id);
  d.core.cancel(id, start);
  d.core.forget(id);
  d.down(replica_id{1});
  const auto actions = d.act();
  CHECK(actions.cancels.empty());
  CHECK(actions.deliveries.empty());
  CHECK(actions.verdicts.empty());
}

TEST_CASE("the usage of a moved stream stays what the client was told", "[route][router]") {
  desk d;
  const auto id = d.open_and_accept();
  token_chunk first{.request = id,
                    .stream = d.sent.at(id).request.sink.stream,
                    .attempt = 1,
                    .offset = 0,
                    .ids = {10},
                    .cached_tokens = 4,
                    .note = ""};
  d.core.tokens({replica_id{1}, {first}}, start);
  CHECK(d.act().deliveries.at(0).cached_tokens == 4);
  d.down(replica_id{1});
  d.act();
  first.attempt = 2;
  first.offset = 1;
  first.cached_tokens = 0;
  d.core.tokens({replica_id{2}, {first}}, start);
  first.offset = 2;
  first.cached_tokens = 5;
  d.core.tokens({replica_id{2}, {first}}, start);
  for (const auto& chunk : d.act().deliveries)
    CHECK(chunk.cached_tokens == 0);
}

TEST_CASE("a restart without a death told is one", "[route][router]") {
  desk d;
  const auto id = d.open_and_accept();
  d.core.replica_up(facts(1), start); // the same life again: nothing happened
  CHECK(d.act().dispatches.empty());
  auto back = facts(1);
  back.incarnation = 2;
  d.core.replica_up(back, start);
  CHECK(d.act().dispatches.at(0).request.id == id);
}

TEST_CASE("cut ends every stream", "[route][router]") {
  desk d;
  (void)d.open();
  const auto id = d.open_and_accept();
  d.give(id, {10});
  d.act();
  CHECK(d.core.cut_all() == 2);
  const auto actions = d.act();
  CHECK(actions.cancels.size() == 2);
  CHECK(actions.verdicts.at(0).outcome.error().code == errc::draining);
  CHECK(actions.deliveries.at(0).finish == finish_reason::abort);
  CHECK(actions.deliveries.at(0).offset == 1);
  CHECK(d.core.stats().hub.open == 0);
}

TEST_CASE("the prefix policy learns from events and asks for snapshots", "[route][router]") {
  router core{{.hub = hub_id{1}, .policy = routing_policy::prefix, .hash_key = 5}};
  core.replica_up(facts(1), start);
  core.replica_up(facts(2), start);
  CHECK(core.take_actions().snapshots == std::vector{replica_id{1}, replica_id{2}});
  const auto request = a_request();
  const auto hash = block_hasher{5}({}, std::span{request.prompt}.first(4), request.cache_salt);
  core.kv_events({.replica = replica_id{2},
                  .incarnation = 1,
                  .through = 8,
                  .snapshot = true,
                  .stored = {hash},
                  .events = {}},
                 start);
  REQUIRE(core.submit(request, start));
  CHECK(core.take_actions().dispatches.at(0).replica == replica_id{2});
  CHECK(core.stats().prompt_tokens_matched == 4);
  core.kv_events({.replica = replica_id{2},
                  .incarnation = 1,
                  .through = 12,
                  .stored = {},
                  .events = {{.number = 12, .hash = hash, .parent = {}}}},
                 start);
  CHECK(core.take_actions().snapshots == std::vector{replica_id{2}});
  CHECK(core.stats().index_gaps == 1);
  CHECK(core.stats().snapshots == 3);
}
