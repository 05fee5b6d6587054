#include "transport/conformance.hpp"
#include "transport/inproc/network.hpp"
#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <cstring>

using namespace troupe;
using namespace troupe::net;
using namespace troupe::net::test;
using namespace std::chrono_literals;

namespace {

/// A transport of the simulation, owned elsewhere: its network keeps the node.
class borrowed final : public transport {
public:
  explicit borrowed(transport& of) : of_{of} {}
  [[nodiscard]] const identity& self() const noexcept override { return of_.self(); }
  [[nodiscard]] result<address> listen(const address& where) override { return of_.listen(where); }
  [[nodiscard]] dial_id dial(const address& where) override { return of_.dial(where); }
  [[nodiscard]] result<std::uint64_t> send(const node_id& to, std::span<const std::byte> header,
                                           shared_bytes payload, pressure how) override {
    return of_.send(to, header, std::move(payload), how);
  }
  using transport::send;
  void drain(const node_id& peer) override { of_.drain(peer); }
  void close(const node_id& peer) override { of_.close(peer); }
  void forgive(const node_id& peer) override { of_.forgive(peer); }
  void post(std::function<void()> job) override { of_.post(std::move(job)); }
  [[nodiscard]] std::vector<peer_stats> stats() const override { return of_.stats(); }
  void stop() override { of_.stop(); }
  [[nodiscard]] transport& get() const noexcept { return of_; }

private:
  transport& of_;
};

transport& real(const transport& of) { return dynamic_cast<const borrowed&>(of).get(); }

class simulated_world final : public world {
public:
  explicit simulated_world(std::uint64_t seed) : net{{.seed = seed}} {}
  [[nodiscard]] std::unique_ptr<transport> add(node_options options, handler& user) override {
    return std::make_unique<borrowed>(net.add(std::move(options), user));
  }
  bool wait(const std::function<bool()>& done, duration limit) override {
    return net.run_until(done, limit);
  }
  [[nodiscard]] std::uint64_t buffers_out(const transport& of) const override {
    return net.buffers_out(real(of));
  }
  [[nodiscard]] address nowhere() const override { return {"nowhere", 1}; }
  [[nodiscard]] address anywhere() const override { return {"sim", 0}; }

  inproc::network net;
};

} // namespace

TEST_CASE("the simulated network keeps the contract", "[net][inproc]") {
  for (const auto& check : conformance_checks()) {
    DYNAMIC_SECTION(check.name) {
      for (std::uint64_t seed = 1; seed <= 2; ++seed) {
        CAPTURE(seed);
        simulated_world in{seed};
        check.run(in);
      }
    }
  }
}

namespace {

/// Two nodes that are up, with the clocks of production.
struct couple {
  explicit couple(std::uint64_t seed) : in{seed} {
    const auto where = b.listen();
    REQUIRE(a.connect(where) == b.id());
    REQUIRE(in.wait([&] { return !b.heard.copy().up.empty(); }, 1s));
  }
  static node_options quick(std::string_view name) {
    auto out = options_of(name);
    out.timing = {};
    return out;
  }
  /// b, or what a says about its end; waits for it.
  error end_of_b() {
    CHECK(in.wait([&] { return !a.heard.copy().down.empty(); }, 10s));
    const auto notes = a.heard.copy();
    REQUIRE(notes.down.size() == 1);
    CHECK(notes.down[0].peer.id == b.id());
    return notes.down[0].why;
  }

  simulated_world in;
  station a{in, quick("a")};
  station b{in, quick("b")};
};

} // namespace

TEST_CASE("a process that is gone is noticed by its links", "[net][inproc]") {
  couple pair{1};
  const auto before = pair.in.net.now();
  pair.in.net.kill(real(*pair.b.net));
  CHECK(pair.end_of_b().code == errc::peer_down);
  CHECK(pair.in.net.now() - before < 10ms);
  pair.in.net.run_for(5s);
  CHECK(pair.a.heard.copy().down.size() == 1);
  CHECK(pair.b.heard.copy().down.empty()); // the dead hear nothing
}

TEST_CASE("a process that stands still is declared dead, and fenced when it returns",
          "[net][inproc]") {
  couple pair{2};
  const auto at_a = pair.a.listen();
  const auto before = pair.in.net.now();
  pair.in.net.stop(real(*pair.b.net));
  // What is sent to it now is lost with the connection.
  REQUIRE(pair.a.net->send(pair.b.id(), {}, shared_bytes::adopt(noise(100, 1))));
  const auto why = pair.end_of_b();
  CHECK(why.code == errc::timed_out);
  CHECK(why.note.find("no sign of life for 10") != std::string::npos);
  CHECK(pair.in.net.now() - before >= 800ms);
  CHECK(pair.in.net.now() - before <= 1100ms);
  pair.in.net.run_for(30s);
  pair.in.net.resume(real(*pair.b.net));
  CHECK(pair.in.wait([&] { return pair.b.heard.copy().down.size() == 1; }, 3s));
  // What was sent before the end was known may be delivered; nothing after it.
  CHECK(pair.b.heard.copy().messages.size() <= 1);
  CHECK(pair.b.connect(at_a).error().code == errc::peer_down);
  CHECK(pair.a.heard.copy().up.size() == 1);
  CHECK(pair.a.heard.copy().refused.size() + pair.b.heard.copy().refused.size() >= 1);
}

TEST_CASE("a process that stood still blames nobody else", "[net][inproc]") {
  couple pair{3};
  // Shorter than the limit of its peer, but longer than its own watch.
  pair.in.net.stop(real(*pair.b.net));
  pair.in.net.run_for(700ms);
  pair.in.net.resume(real(*pair.b.net));
  pair.in.net.run_for(5s);
  CHECK(pair.a.heard.copy().down.empty());
  CHECK(pair.b.heard.copy().down.empty());
}

TEST_CASE("both sides of a cut declare each other dead", "[net][inproc]") {
  couple pair{4};
  pair.in.net.cut(real(*pair.a.net), real(*pair.b.net));
  CHECK(pair.end_of_b().code == errc::timed_out);
  CHECK(pair.in.wait([&] { return pair.b.heard.copy().down.size() == 1; }, 1s));
  pair.in.net.heal(real(*pair.a.net), real(*pair.b.net));
  pair.in.net.run_for(5s);
  CHECK(pair.a.heard.copy().down.size() == 1);
  CHECK(pair.b.heard.copy().down.size() == 1);
  // A dial into a cut ends by the clock.
  station c{pair.in, couple::quick("c")};
  const auto at_c = c.listen();
  pair.in.net.cut(real(*pair.a.net), real(*c.net));
  CHECK(pair.a.connect(at_c).error().code == errc::timed_out);
}

TEST_CASE("a short cut only delays", "[net][inproc]") {
  couple pair{5};
  pair.in.net.cut(real(*pair.a.net), real(*pair.b.net));
  for (std::uint64_t i = 0; i < 100; ++i)
    REQUIRE(pair.a.net->send(pair.b.id(), {}, shared_bytes::adopt(noise(i, i))));
  pair.in.net.run_for(500ms);
  CHECK(pair.b.heard.copy().messages.empty());
  pair.in.net.heal(real(*pair.a.net), real(*pair.b.net));
  CHECK(pair.in.wait([&] { return pair.b.heard.copy().messages.size() == 100; }, 1s));
  CHECK(pair.a.heard.copy().down.empty());
}

TEST_CASE("a broken link ends the connection on both sides, once", "[net][inproc]") {
  couple pair{6};
  pair.in.net.break_links(real(*pair.a.net), real(*pair.b.net));
  CHECK(pair.end_of_b().code == errc::peer_down);
  pair.in.net.run_for(5s);
  CHECK(pair.b.heard.copy().down.size() == 1);
  CHECK(pair.a.heard.copy().down.size() == 1);
}

TEST_CASE("a heartbeat measures the round trip", "[net][inproc]") {
  couple pair{7};
  pair.in.net.run_for(2s);
  const auto rows = pair.a.net->stats();
  REQUIRE(rows.size() == 1);
  CHECK(rows[0].round_trip >= 40us);
  CHECK(rows[0].round_trip <= 800us);
  CHECK(rows[0].lanes == "inproc");
}

TEST_CASE("a seed is a run", "[net][inproc]") {
  const auto run = [](std::uint64_t seed) {
    couple pair{seed};
    for (std::uint64_t i = 0; i < 50; ++i)
      REQUIRE(pair.a.net->send(pair.b.id(), {}, shared_bytes::adopt(noise(i * 100, i))));
    CHECK(pair.in.wait([&] { return pair.b.heard.copy().messages.size() == 50; }, 1s));
    return std::pair{pair.in.net.now(), pair.b.net->stats()[0].reorder_frames_max};
  };
  CHECK(run(11) == run(11));
  CHECK(run(11) != run(12));
  CHECK(run(11).second > 0);
}

TEST_CASE("random faults never break the contract", "[net][inproc]") {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    CAPTURE(seed);
    splitmix64 random{seed};
    couple pair{seed};
    auto& net = pair.in.net;
    auto& a = real(*pair.a.net);
    auto& b = real(*pair.b.net);
    for (std::uint64_t i = 0; i < 300; ++i) {
      const auto header = std::as_bytes(std::span{&i, 1});
      auto payload = shared_bytes::adopt(noise(random.below(5000), i));
      static_cast<void>(pair.a.net->send(pair.b.id(), header, std::move(payload)));
      static_cast<void>(pair.b.net->send(pair.a.id(), header));
      net.run_for(std::chrono::microseconds{random.below(2000)});
      if (i != 150)
        continue;
      switch (seed % 6) {
      case 0:
        net.kill(b);
        break;
      case 1:
        net.stop(b);
        break;
      case 2:
        net.cut(a, b);
        break;
      case 3:
        net.break_links(a, b);
        break;
      case 4:
        pair.b.net->close(pair.a.id());
        break;
      default:
        pair.b.net->drain(pair.a.id());
      }
    }
    CHECK(pair.end_of_b().code != errc::none);
    // In order, without gaps, until the end.
    std::uint64_t next = 0;
    for (const auto& m : pair.b.heard.copy().messages) {
      REQUIRE(std::memcmp(m.header.data(), &next, sizeof next) == 0);
      REQUIRE(m.payload == shared_bytes::adopt(noise(m.payload.size(), next)));
      ++next;
    }
    CHECK(next >= 100);
    pair.a.heard.forget_messages();
    CHECK(net.buffers_out(a) == 0);
    if (seed % 6 == 1)
      net.resume(b);
  }
}
