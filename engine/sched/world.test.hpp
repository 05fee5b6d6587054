#pragma once

#include "engine/sched/replica_loop.test.hpp"

#include <catch2/catch.hpp>

/// One replica with its clients, for the tests of the scheduler.
namespace troupe::engine::test {

/// What the client of one request saw.
struct client {
  submission request;
  expected_answer expected;
  std::vector<token_id> seen;
  bool disturbed = false;
};

/// A replica and its clients, who check their answers against the model alone.
class world : public replica_loop {
public:
  world(const scheduler_config& config, token_id vocab)
      : replica_loop{config, vocab}, vocab{vocab} {}

  /// Submits; the client is known when the scheduler takes the request.
  result<void> submit(const submission& request) {
    const auto known = live.contains(request.id);
    if (!known && !request.prompt.empty() && request.sampling.max_tokens > 0)
      live.emplace(request.id, client{.request = request,
                                      .expected = decode_alone(request.prompt, request.sampling,
                                                               config.max_model_len, vocab),
                                      .seen = request.delivered});
    auto taken = replica_loop::submit(request);
    REQUIRE_FALSE((known && taken));
    if (!taken && !known)
      live.erase(request.id);
    return taken;
  }

  void cancel_hub(hub_id hub) {
    for (auto& [id, who] : live)
      who.disturbed = who.disturbed || who.request.sink.hub == hub;
    replica_loop::cancel_hub(hub);
  }

  void cancel(request_id id) {
    row_failed(id);
    replica_loop::cancel(id);
  }

  void expire() {
    for (auto& [id, who] : live)
      who.disturbed = who.disturbed || who.request.timeout.count() > 0;
    replica_loop::expire();
  }

  void fail_step(bool learns_late) {
    const auto before = live;
    for (auto& [id, who] : live)
      who.disturbed = true;
    replica_loop::fail_step(learns_late, {errc::internal, "the device is lost"});
    for (auto& [id, who] : live)
      who.disturbed = before.at(id).disturbed;
  }

  /// Everything goes on, in a fixed order, until nobody is left.
  /// @return how many rounds it took
  std::uint32_t drain(std::uint32_t most_rounds) {
    for (std::uint32_t round = 0; round < most_rounds; ++round) {
      bool moved = false;
      while (step_kv() || step_answer())
        moved = true;
      moved = step_plan() || moved;
      while (step_kv() || step_answer())
        moved = true;
      moved = step_plan() || moved;
      moved = step_worker() || moved;
      if (quiet())
        return round;
      INFO("live " << live.size() << ", blocks used " << sched.stats().blocks_used);
      REQUIRE(moved);
    }
    FAIL("no end after " << most_rounds << " rounds, " << live.size() << " requests are left");
    return most_rounds;
  }

  token_id vocab;
  std::map<request_id, client> live;
  /// Requests that ended, by how, and in their order.
  std::map<finish_reason, std::uint64_t> ends;
  std::vector<request_id> ended;
  std::uint64_t undisturbed_ends = 0;
  std::uint64_t cached_tokens = 0;

private:
  void receive(hub_id hub, const token_chunk& chunk) override {
    REQUIRE(live.contains(chunk.request));
    auto& who = live.at(chunk.request);
    REQUIRE(hub == who.request.sink.hub);
    REQUIRE(chunk.stream == who.request.sink.stream);
    REQUIRE(chunk.attempt == who.request.attempt);
    REQUIRE(chunk.offset == who.seen.size());
    who.seen.insert(who.seen.end(), chunk.ids.begin(), chunk.ids.end());
    cached_tokens += chunk.cached_tokens;
    REQUIRE(who.seen.size() <= who.expected.tokens.size());
    REQUIRE(std::ranges::equal(who.seen, std::span{who.expected.tokens}.first(who.seen.size())));
    if (chunk.finish == finish_reason::none)
      return;
    ++ends[chunk.finish];
    if (chunk.finish == finish_reason::stop || chunk.finish == finish_reason::length) {
      REQUIRE(chunk.finish == who.expected.finish);
      REQUIRE(who.seen == who.expected.tokens);
      REQUIRE((chunk.finish == finish_reason::length || chunk.stop_token == who.seen.back()));
      ++undisturbed_ends;
    } else {
      REQUIRE(who.disturbed);
    }
    ended.push_back(chunk.request);
    live.erase(chunk.request);
  }

  void row_failed(request_id id) override {
    if (const auto found = live.find(id); found != live.end())
      found->second.disturbed = true;
  }
};

} // namespace troupe::engine::test
