#include "transport/hello.hpp"

#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::net;

namespace {

hello sample() {
  hello out;
  out.token = 7;
  out.id = {1, 2};
  out.name = "front";
  out.listens_at = {"10.0.0.1", 7600};
  out.types_hash = 11;
  out.config = {{"models", 1}, {"routing", 2}};
  out.window_bytes = 1 << 20;
  out.where = {3, 4, 5};
  out.challenge[31] = std::byte{9};
  return out;
}

hello other() {
  auto out = sample();
  out.id = {1, 3};
  out.name = "stage";
  return out;
}

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span{text});
}

} // namespace

TEST_CASE("a hello survives the wire, and only whole", "[net][hello]") {
  const auto body = encode(sample());
  CHECK(decode_hello(body) == sample());
  for (std::size_t size = 0; size < body.size(); ++size)
    REQUIRE(decode_hello(std::span{body}.first(size)).error().code == errc::corrupt_data);
  auto longer = body;
  longer.push_back(std::byte{0});
  CHECK_FALSE(decode_hello(longer));
  splitmix64 random{7};
  for (int round = 0; round < 5000; ++round) {
    auto bent = body;
    for (int i = 0; i < 4; ++i)
      bent[random.below(bent.size())] = std::byte(random.below(256));
    static_cast<void>(decode_hello(bent)); // must stay in bounds, whatever it says
  }
}

TEST_CASE("refusals and gossip survive the wire, and only whole", "[net][hello]") {
  const refusal why{refusal_kind::config, "because", {5, 6}, "front"};
  const auto body = encode(why);
  const auto back = decode_refusal(body);
  REQUIRE(back);
  CHECK(back->kind == why.kind);
  CHECK(back->note == "because");
  CHECK(back->by == why.by);
  CHECK(back->by_name == "front");
  for (std::size_t size = 0; size < body.size(); ++size)
    REQUIRE_FALSE(decode_refusal(std::span{body}.first(size)));

  const std::vector<known_node> nodes{{{1, 2}, "a", {"h", 1}}, {{3, 4}, "b", {"", 0}}};
  const auto list = encode(nodes);
  const auto heard = decode_gossip(list);
  REQUIRE(heard);
  REQUIRE(heard->size() == 2);
  CHECK((*heard)[1].id == node_id{3, 4});
  CHECK((*heard)[0].listens_at == address{"h", 1});
  for (std::size_t size = 0; size < list.size(); ++size)
    REQUIRE_FALSE(decode_gossip(std::span{list}.first(size)));
}

TEST_CASE("nodes that fit are let in, others hear why", "[net][hello]") {
  CHECK_FALSE(misfit(sample(), other()));

  auto theirs = other();
  theirs.id = sample().id;
  CHECK(misfit(sample(), theirs)->kind == refusal_kind::same_id);

  theirs = other();
  theirs.name = "front";
  CHECK(misfit(sample(), theirs)->kind == refusal_kind::same_name);

  theirs = other();
  theirs.has_secret = true;
  CHECK(to_error(*misfit(sample(), theirs)).code == errc::unauthorized);
  CHECK(misfit(sample(), theirs)->note.find("'stage' has a secret and node 'front' has none") !=
        std::string::npos);

  theirs = other();
  theirs.types_hash = 12;
  CHECK(misfit(sample(), theirs)->kind == refusal_kind::types);

  theirs = other();
  theirs.config = {{"routing", 3}, {"models", 1}, {"numerics", 4}};
  const auto why = misfit(sample(), theirs);
  REQUIRE(why);
  CHECK(to_error(*why).code == errc::conflict);
  CHECK(why->note.find("in: routing, numerics;") != std::string::npos);
  theirs.config = {{"routing", 2}, {"models", 1}};
  CHECK_FALSE(misfit(sample(), theirs));
  theirs.config.clear();
  CHECK_FALSE(misfit(sample(), theirs));

  CHECK(to_error(version_misfit(sample(), 9)).code == errc::unsupported);
  CHECK(version_misfit(sample(), 9).note.find("version 9") != std::string::npos);
}

TEST_CASE("a proof fits one secret, one label and one pair of hellos", "[net][hello]") {
  const auto a = prove(bytes_of("secret"), "label", bytes_of("hello"), bytes_of("ack"));
  CHECK(same_proof(a, prove(bytes_of("secret"), "label", bytes_of("hello"), bytes_of("ack"))));
  CHECK_FALSE(
      same_proof(a, prove(bytes_of("Secret"), "label", bytes_of("hello"), bytes_of("ack"))));
  CHECK_FALSE(
      same_proof(a, prove(bytes_of("secret"), "labe", bytes_of("lhello"), bytes_of("ack"))));
  CHECK_FALSE(
      same_proof(a, prove(bytes_of("secret"), "label", bytes_of("helloa"), bytes_of("ck"))));
  CHECK_FALSE(same_proof(a, std::span{a}.first(31)));
  CHECK(same_proof(prove({}, "l", {}, {}), prove({}, "l", {}, {})));
}
