#include "engine/route/hub.hpp"

#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <map>
#include <set>

using namespace troupe;
using namespace troupe::engine;

namespace {

submission a_request() {
  submission out;
  out.prompt = {1, 2, 3};
  return out;
}

token_chunk chunk_of(const submission& request, std::uint32_t offset, std::vector<token_id> ids,
                     finish_reason finish = finish_reason::none) {
  token_chunk out;
  out.request = request.id;
  out.stream = request.sink.stream;
  out.attempt = request.attempt;
  out.offset = offset;
  out.ids = std::move(ids);
  out.finish = finish;
  return out;
}

constexpr replica_id here{2};
constexpr replica_id there{3};

} // namespace

TEST_CASE("a stream is opened, fed and ended", "[route][hub]") {
  hub on{hub_id{4}, 10};
  const auto sent = on.open(a_request(), here);
  REQUIRE(sent);
  CHECK(value(sent->id) >> 40 == 4);
  CHECK(sent->sink.hub == hub_id{4});
  CHECK(sent->attempt == 1);
  CHECK(on.replica_of(sent->id) == here);
  CHECK(on.streams_of(here) == std::vector{sent->id});
  const auto first = on.deliver(chunk_of(*sent, 0, {5, 6}));
  REQUIRE(first);
  CHECK(first->ids == std::vector<token_id>{5, 6});
  const auto last = chunk_of(*sent, 2, {7}, finish_reason::stop);
  CHECK(on.deliver(last));
  CHECK_FALSE(on.replica_of(sent->id));
  CHECK(on.streams().empty());
  CHECK(on.streams_of(here).empty());
  CHECK_FALSE(on.deliver(last));
  CHECK(on.stats().dropped == 1);
  CHECK(on.stats().ended == 1);
}

TEST_CASE("ids are unique and in order", "[route][hub]") {
  hub on{hub_id{1}, 100};
  std::set<request_id> ids;
  std::vector<request_id> order;
  for (int i = 0; i < 50; ++i) {
    order.push_back(on.open(a_request(), here)->id);
    ids.insert(order.back());
  }
  CHECK(ids.size() == 50);
  CHECK(on.streams() == order);
}

TEST_CASE("the number of streams is bounded", "[route][hub]") {
  hub on{hub_id{1}, 2};
  const auto first = on.open(a_request(), here);
  REQUIRE(first);
  REQUIRE(on.open(a_request(), here));
  CHECK(on.open(a_request(), here).error().code == errc::busy);
  on.close(first->id);
  on.close(first->id);
  CHECK(on.open(a_request(), here));
  CHECK(on.stats().open == 2);
}

TEST_CASE("a closed stream takes nothing more", "[route][hub]") {
  hub on{hub_id{1}, 10};
  const auto sent = on.open(a_request(), here);
  on.close(sent->id);
  CHECK_FALSE(on.deliver(chunk_of(*sent, 0, {1})));
  CHECK_FALSE(on.resume(sent->id, there));
}

TEST_CASE("chunks of another offset or stream are dropped", "[route][hub]") {
  hub on{hub_id{1}, 10};
  const auto sent = on.open(a_request(), here);
  CHECK_FALSE(on.deliver(chunk_of(*sent, 1, {1})));
  auto other = chunk_of(*sent, 0, {1});
  other.stream = stream_id{99};
  CHECK_FALSE(on.deliver(other));
  CHECK(on.deliver(chunk_of(*sent, 0, {1})));
  CHECK_FALSE(on.deliver(chunk_of(*sent, 0, {1})));
  CHECK(on.stats().dropped == 3);
}

TEST_CASE("a resumed stream goes on behind what was delivered", "[route][hub]") {
  hub on{hub_id{1}, 10};
  const auto sent = on.open(a_request(), here);
  REQUIRE(on.deliver(chunk_of(*sent, 0, {8, 9})));
  const auto again = on.resume(sent->id, there);
  REQUIRE(again);
  CHECK(again->attempt == 2);
  CHECK(again->delivered == std::vector<token_id>{8, 9});
  CHECK(again->prompt == sent->prompt);
  CHECK(on.streams_of(here).empty());
  CHECK(on.streams_of(there) == std::vector{sent->id});
  CHECK_FALSE(on.deliver(chunk_of(*sent, 2, {10})));
  CHECK(on.deliver(chunk_of(*again, 2, {10})));
}

namespace {

/// Replicas that send, a wire that loses, doubles and shuffles, and a router that at times believes
/// a replica dead which is not.
class rough_sea {
public:
  static constexpr std::size_t length = 30;

  void step() {
    const auto dice = random_.below(100);
    if (dice < 8)
      open();
    else if (dice < 50 && !sources_.empty())
      send();
    else if (dice < 94 && !wire_.empty())
      receive();
    else if (dice < 96)
      lose_replica();
    else if (dice == 98 && !hub_.streams().empty())
      hub_.close(any_stream());
  }

  std::uint64_t completed = 0;
  [[nodiscard]] hub_stats stats() const { return hub_.stats(); }

private:
  /// One attempt on some replica.
  struct source {
    submission request;
    std::uint32_t at = 0;
  };

  static token_id answer(request_id request, std::size_t at) {
    return static_cast<token_id>((value(request) % 1000 * 1000003 + at * 7919) % 32000);
  }

  replica_id any_replica() { return replica_id{static_cast<std::uint32_t>(random_.below(5))}; }
  request_id any_stream() {
    const auto open = hub_.streams();
    return open[random_.below(open.size())];
  }

  void open() {
    if (auto sent = hub_.open(a_request(), any_replica())) {
      seen_[sent->id] = {};
      sources_.push_back({std::move(*sent), 0});
    }
  }

  void send() {
    const auto which = random_.below(sources_.size());
    auto& from = sources_[which];
    auto chunk = chunk_of(from.request, from.at, {});
    for (auto n = 1 + random_.below(6); n > 0 && from.at < length; --n)
      chunk.ids.push_back(answer(from.request.id, from.at++));
    if (from.at == length) {
      chunk.finish = finish_reason::length;
      sources_.erase(sources_.begin() + static_cast<std::ptrdiff_t>(which));
    }
    wire_.push_back(std::move(chunk));
  }

  void receive() {
    const auto which = random_.below(40) == 0 ? random_.below(wire_.size()) : 0;
    const auto chunk = wire_[which];
    const auto fate = random_.below(60);
    if (fate != 0) // else it comes again
      wire_.erase(wire_.begin() + static_cast<std::ptrdiff_t>(which));
    if (fate == 1)
      return;
    const auto out = hub_.deliver(chunk);
    if (!out)
      return;
    auto& tokens = seen_.at(out->request);
    REQUIRE(out->offset == tokens.size());
    tokens.insert(tokens.end(), out->ids.begin(), out->ids.end());
    for (std::size_t i = out->offset; i < tokens.size(); ++i)
      REQUIRE(tokens[i] == answer(out->request, i));
    if (out->finish == finish_reason::none)
      return;
    REQUIRE(tokens.size() == length);
    REQUIRE_FALSE(hub_.replica_of(out->request));
    ++completed;
  }

  void lose_replica() {
    for (const auto id : hub_.streams_of(any_replica())) {
      auto again = hub_.resume(id, any_replica());
      REQUIRE(again);
      REQUIRE(again->delivered == seen_.at(id));
      const auto at = static_cast<std::uint32_t>(again->delivered.size());
      sources_.push_back({std::move(*again), at});
    }
    if (sources_.size() > 60)
      sources_.erase(sources_.begin(), sources_.begin() + 20);
  }

  splitmix64 random_{11};
  hub hub_{hub_id{1}, 20};
  std::vector<source> sources_;
  std::vector<token_chunk> wire_;
  std::map<request_id, std::vector<token_id>> seen_;
};

} // namespace

TEST_CASE("no token is doubled or lost, whatever happens on the way", "[route][hub][property]") {
  rough_sea sea;
  for (int operation = 0; operation < 100'000; ++operation)
    sea.step();
  CHECK(sea.completed > 500);
  CHECK(sea.stats().dropped > 1000);
}
