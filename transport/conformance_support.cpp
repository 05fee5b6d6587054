#include "transport/conformance.hpp"
#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

namespace troupe::net::test {

void recorder::peer_up(const peer_facts& peer) {
  const std::lock_guard guard{mutex_};
  if (std::find(now_up_.begin(), now_up_.end(), peer.id) != now_up_.end())
    notes_.breaches.push_back("up twice: " + peer.name);
  now_up_.push_back(peer.id);
  notes_.up.push_back(peer);
}

void recorder::peer_down(const peer_facts& peer, const error& why) {
  const std::lock_guard guard{mutex_};
  if (std::erase(now_up_, peer.id) != 1)
    notes_.breaches.push_back("down without up: " + peer.name);
  notes_.down.push_back({peer, why});
}

void recorder::message(const node_id& from, std::span<const std::byte> header,
                       shared_bytes payload) {
  received note{from, {header.begin(), header.end()}, std::move(payload)};
  {
    const std::lock_guard guard{mutex_};
    if (std::find(now_up_.begin(), now_up_.end(), from) == now_up_.end())
      notes_.breaches.push_back("a message of a node that is not up");
    notes_.messages.push_back(note);
  }
  if (on_message)
    on_message(note);
}

void recorder::drained(const node_id&) {
  const std::lock_guard guard{mutex_};
  ++notes_.drained;
}

void recorder::dialed(dial_id dial, const address&, const result<node_id>& outcome) {
  const std::lock_guard guard{mutex_};
  if (outcome && std::find(now_up_.begin(), now_up_.end(), *outcome) == now_up_.end())
    notes_.breaches.push_back("a dial succeeded before its peer was up");
  notes_.dialed.push_back({dial, outcome});
}

void recorder::refused(const peer_facts& who, const error& why) {
  const std::lock_guard guard{mutex_};
  notes_.refused.push_back({who, why});
}

void recorder::heard_of(const known_node& other) {
  const std::lock_guard guard{mutex_};
  notes_.heard.push_back(other);
}

recorder::notes recorder::copy() const {
  const std::lock_guard guard{mutex_};
  return notes_;
}

void recorder::forget_messages() {
  const std::lock_guard guard{mutex_};
  notes_.messages.clear();
}

node_options options_of(std::string_view name) {
  node_options out;
  out.self.name = name;
  out.self.types_hash = 42;
  out.self.config = {{"models", 1}, {"routing", 2}, {"numerics", 3}};
  out.self.secret.assign(16, std::byte{0x5a});
  // Sanitizers and a busy machine are slow: a node that only computes must not look dead.
  out.timing.dead_after = std::chrono::seconds{10};
  return out;
}

std::vector<std::byte> noise(std::size_t size, std::uint64_t seed) {
  splitmix64 random{seed ^ size};
  std::vector<std::byte> out(size);
  std::size_t at = 0;
  for (; at + 8 <= size; at += 8) {
    const auto word = random();
    std::memcpy(out.data() + at, &word, 8);
  }
  for (; at < size; ++at)
    out[at] = std::byte(random.below(256));
  return out;
}

std::vector<std::size_t> mixed_sizes(std::uint64_t seed) {
  std::vector<std::size_t> out;
  const std::size_t each[] = {0, 1, 64, 1000, 4000, 8192, 65536, 300000};
  for (const auto size : each)
    out.insert(out.end(), 12, size);
  out.insert(out.end(), {std::size_t{1} << 20, std::size_t{4} << 20, std::size_t{8} << 20});
  splitmix64 random{seed};
  for (std::size_t i = out.size(); i > 1; --i)
    std::swap(out[i - 1], out[random.below(i)]);
  return out;
}

station::station(world& where, node_options options)
    : in{where}, net{where.add(std::move(options), heard)} {}

station::~station() {
  net->stop();
  const auto breaches = heard.copy().breaches;
  CHECK(breaches.empty());
}

address station::listen() {
  const auto got = net->listen(in.anywhere());
  INFO((got ? std::string{} : to_string(got.error())));
  REQUIRE(got);
  return *got;
}

result<node_id> station::connect(const address& where) {
  const auto id = net->dial(where);
  result<node_id> out = fail(errc::internal, "no outcome");
  const auto answered = [&] {
    return heard.with([&](const recorder::notes& n) {
      for (const auto& d : n.dialed)
        if (d.dial == id)
          out = d.outcome;
      return out.has_value() || out.error().code != errc::internal;
    });
  };
  CHECK(in.wait(answered, std::chrono::seconds{30}));
  return out;
}

} // namespace troupe::net::test
