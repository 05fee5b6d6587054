// Two meshes over a link that shuffles, repeats, damages and invents frames, by a seed. Whatever
// comes in, nothing aborts, and what is delivered was sent.
#include "transport/mesh.hpp"
#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstring>
#include <deque>
#include <set>

using namespace troupe;
using namespace troupe::net;

namespace {

/// A link whose frames lie in a list until the test takes them.
class listed_link final : public link_driver {
public:
  void open(link_id link, const address&) override { links.push_back(link); }
  sending transmit(link_id, outgoing_frame frame) override {
    out.push_back(std::move(frame));
    return sending::done;
  }
  void close(link_id link, parting) override { closed.insert(link); }
  void suspect(link_id, const process_identity&) override {}
  [[nodiscard]] std::string lanes(link_id) const override { return "list"; }

  std::vector<link_id> links;
  std::deque<outgoing_frame> out;
  std::set<link_id> closed;
};

connection_settings settings_of(std::uint64_t number, std::uint64_t seed) {
  connection_settings out;
  auto& self = out.options.self;
  self.id = {number, number};
  self.name = "node" + std::to_string(number);
  self.secret.assign(16, std::byte{1});
  out.options.limits.window_bytes = 1 << 20;
  out.random = [random = splitmix64{seed}](std::span<std::byte> bytes) mutable {
    for (auto& b : bytes)
      b = std::byte(random.below(256));
  };
  return out;
}

struct side {
  side(std::uint64_t number, std::uint64_t seed) : net{settings_of(number, seed), wire, door} {}
  /// Takes one frame as a transport would.
  void take(std::span<const std::byte> head, const shared_bytes& payload, time_point now) {
    const auto header = decode_header(head, payload.size());
    if (!header)
      return;
    const auto at = net.admit(*header, link, now);
    if (!at)
      return;
    incoming_frame in;
    in.header = *header;
    in.meta = shared_bytes::copy_of(head.subspan(frame_header_bytes));
    in.payload = payload;
    net.frame_arrived(*at, std::move(in), now);
  }
  std::vector<event> events() {
    std::vector<event> out;
    net.take_events(out);
    return out;
  }

  listed_link wire;
  admission door{limits{}};
  mesh net;
  std::optional<link_id> link;
};

struct pair_of_nodes {
  explicit pair_of_nodes(std::uint64_t seed) : random{seed}, a{1, seed * 2}, b{2, seed * 2 + 1} {
    a.net.dial(dial_id{1}, {"list", 1}, now);
    a.link = a.wire.links.at(0);
    b.link = b.net.accept(now);
  }
  /// Moves one frame, a random one of those under way, from one side to the other.
  bool move(side& from, side& to, double damage) {
    if (from.wire.out.empty())
      return false;
    const auto at = random.below(from.wire.out.size());
    const auto frame = std::move(from.wire.out[at]);
    from.wire.out.erase(from.wire.out.begin() + static_cast<std::ptrdiff_t>(at));
    auto head = frame.head;
    std::vector<std::byte> body{frame.payload.view().begin(), frame.payload.view().end()};
    if (static_cast<double>(random.below(1000)) < damage * 1000)
      break_it(head, body);
    to.take(head, shared_bytes::adopt(body), now);
    if (static_cast<double>(random.below(1000)) < damage * 500)
      to.take(head, shared_bytes::adopt(std::move(body)), now);
    now += std::chrono::microseconds{50};
    return true;
  }
  void break_it(std::vector<std::byte>& head, std::vector<std::byte>& body) {
    auto& part = random.below(2) == 0 || body.empty() ? head : body;
    switch (random.below(4)) {
    case 0:
      part.resize(random.below(part.size() + 1));
      return;
    case 1:
      part.resize(part.size() + random.below(64), std::byte{0xff});
      return;
    case 2: // The sizes in the header go along, so that the damage gets past them.
      body.resize(random.below(body.size() + 64), std::byte{0x7f});
      if (head.size() >= 12) {
        const auto size = static_cast<std::uint32_t>(body.size());
        std::memcpy(head.data() + 8, &size, sizeof size);
      }
      return;
    default:
      for (auto flips = random.below(4) + 1; flips > 0 && !part.empty(); --flips)
        part[random.below(part.size())] ^= std::byte(1U << random.below(8));
    }
  }
  void run(double damage, int steps) {
    for (int i = 0; i < steps; ++i) {
      const bool moved = move(a, b, damage);
      if (!move(b, a, damage) && !moved)
        return;
    }
  }

  splitmix64 random;
  time_point now{std::chrono::hours{1}};
  side a;
  side b;
};

bool is_up(const std::vector<event>& events) {
  return std::any_of(events.begin(), events.end(),
                     [](const event& e) { return std::holds_alternative<peer_up_event>(e); });
}

void send(pair_of_nodes& nodes, std::uint64_t number, std::size_t payload_bytes) {
  const auto header = std::as_bytes(std::span{&number, 1});
  auto in = nodes.a.door.admit({2, 2}, header.size(), payload_bytes, pressure::refuse);
  if (!in)
    return;
  nodes.a.net.enqueue({2, 2}, *in,
                      make_message(header, shared_bytes::adopt(std::vector<std::byte>(
                                               payload_bytes, std::byte(number)))));
  nodes.a.net.flush(nodes.now);
}

} // namespace

TEST_CASE("a link that shuffles its frames delivers in order", "[net][hostile]") {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    CAPTURE(seed);
    pair_of_nodes nodes{seed};
    nodes.run(0, 100);
    REQUIRE(is_up(nodes.a.events()));
    REQUIRE(is_up(nodes.b.events()));
    for (std::uint64_t i = 0; i < 200; ++i)
      send(nodes, i, nodes.random.below(3) == 0 ? 20000 : nodes.random.below(300));
    nodes.run(0, 10000);
    std::uint64_t next = 0;
    for (const auto& e : nodes.b.events()) {
      if (const auto* m = std::get_if<message_event>(&e)) {
        REQUIRE(m->header.size() == sizeof next);
        std::uint64_t number = 0;
        std::memcpy(&number, m->header.data(), sizeof number);
        REQUIRE(number == next++);
      }
    }
    REQUIRE(next == 200);
  }
}

TEST_CASE("damaged frames end a connection and nothing else", "[net][hostile]") {
  int survived = 0;
  for (std::uint64_t seed = 1; seed <= 600; ++seed) {
    CAPTURE(seed);
    pair_of_nodes nodes{seed};
    // Every other run is damaged from the first hello on, the rest once the nodes trust each other.
    if (seed % 2 == 0)
      nodes.run(0, 100);
    nodes.run(0.05, 100);
    for (std::uint64_t i = 0; i < 60; ++i)
      send(nodes, i, nodes.random.below(4000));
    nodes.run(0.05, 2000);
    nodes.a.net.tick(nodes.now);
    nodes.b.net.tick(nodes.now + std::chrono::seconds{30});
    nodes.run(0.05, 200);
    survived += nodes.b.wire.closed.empty() ? 1 : 0;
  }
  // The damage is heavy: hardly a connection lives through it.
  CHECK(survived < 300);
}

TEST_CASE("a hello that comes twice ends its connection and no other", "[net][hostile]") {
  for (const bool late : {false, true}) {
    CAPTURE(late);
    pair_of_nodes nodes{5};
    REQUIRE(nodes.a.wire.out.size() == 1);
    const auto hello = nodes.a.wire.out.front();
    REQUIRE(hello.header.op == opcode::hello);
    if (late) {
      nodes.run(0, 100);
      REQUIRE(is_up(nodes.b.events()));
    } else {
      REQUIRE(nodes.move(nodes.a, nodes.b, 0));
    }
    REQUIRE(nodes.b.wire.closed.empty());
    nodes.b.take(hello.head, hello.payload, nodes.now);
    CHECK(nodes.b.wire.closed.size() == 1);
    const auto events = nodes.b.events();
    CHECK_FALSE(is_up(events));
    const auto downs = std::count_if(events.begin(), events.end(), [](const event& e) {
      const auto* down = std::get_if<peer_down_event>(&e);
      return down != nullptr && down->why.code == errc::corrupt_data;
    });
    CHECK(downs == (late ? 1 : 0));
    // Another node is let in.
    side c{3, 77};
    c.net.dial(dial_id{1}, {"list", 1}, nodes.now);
    c.link = c.wire.links.at(0);
    nodes.b.link = nodes.b.net.accept(nodes.now);
    nodes.b.wire.out.clear();
    while (nodes.move(c, nodes.b, 0) || nodes.move(nodes.b, c, 0)) {
    }
    CHECK(is_up(nodes.b.events()));
    CHECK(is_up(c.events()));
  }
}

TEST_CASE("noise is no node", "[net][hostile]") {
  splitmix64 random{7};
  side b{2, 9};
  const time_point now{std::chrono::hours{1}};
  for (int i = 0; i < 20000; ++i) {
    if (!b.link || b.wire.closed.contains(*b.link))
      b.link = b.net.accept(now);
    REQUIRE(b.link);
    std::vector<std::byte> head(random.below(120));
    for (auto& x : head)
      x = std::byte(random.below(256));
    // Half of them look like frames of ours until the body is read.
    std::vector<std::byte> body(random.below(200), std::byte(random.below(256)));
    if (random.below(2) == 0) {
      frame_header header;
      header.op = opcode{static_cast<std::uint8_t>(1 + random.below(11))};
      header.payload_bytes = static_cast<std::uint32_t>(body.size());
      header.sequence = random.below(3);
      header.version = static_cast<std::uint8_t>(random.below(10) == 0 ? 2 : 1);
      head.assign(frame_header_bytes, std::byte{0});
      encode_header(header, head);
    }
    b.take(head, shared_bytes::adopt(std::move(body)), now);
  }
  CHECK(!is_up(b.events()));
}

TEST_CASE("a node of another protocol version is told so, at both ends", "[net][hostile]") {
  pair_of_nodes nodes{3};
  nodes.a.wire.out.at(0).head[1] = std::byte{9};
  nodes.run(0, 10);
  for (auto* side : {&nodes.a, &nodes.b}) {
    const auto events = side->events();
    const auto refused = std::find_if(events.begin(), events.end(), [](const event& e) {
      return std::holds_alternative<refused_event>(e);
    });
    REQUIRE(refused != events.end());
    const auto& why = std::get<refused_event>(*refused).why;
    CHECK(why.code == errc::unsupported);
    CHECK_THAT(why.note, Catch::Contains("version 9"));
    CHECK(!is_up(events));
  }
}
