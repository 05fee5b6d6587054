#include "tests/sim/network.hpp"

#include <catch2/catch.hpp>

#include <memory>

using namespace troupe;
using namespace troupe::sim;
using std::chrono::milliseconds;

namespace {

/// Remembers what it hears.
class listener final : public process {
public:
  void peer_up(node_index) override { ++ups; }
  void peer_down(node_index) override { ++downs; }
  void receive(node_index, message what) override {
    heard.push_back(value(std::get<attach_message>(what).hub));
  }

  int ups = 0;
  int downs = 0;
  std::vector<std::uint32_t> heard;
};

struct pair_of_nodes {
  pair_of_nodes() {
    net.on_fenced = [this](node_index, node_index) { ++fences; };
    net.introduce(a, b);
    net.start(a, left);
    net.start(b, right);
    run(milliseconds{200});
  }

  void run(duration time) {
    bool there = false;
    clock.after(time, [&] { there = true; });
    while (!there)
      (void)clock.step();
  }

  void say(std::uint32_t word) { net.send(a, b, attach_message{hub_id{word}}); }

  timeline clock;
  trace log{trace::level::digest};
  network net{clock, log, 7, {}};
  node_index a = net.add("a");
  node_index b = net.add("b");
  listener left;
  listener right;
  int fences = 0;
};

} // namespace

TEST_CASE("messages arrive in order", "[sim][network]") {
  pair_of_nodes on;
  CHECK(on.left.ups == 1);
  CHECK(on.right.ups == 1);
  for (std::uint32_t i = 0; i < 50; ++i)
    on.say(i);
  on.run(milliseconds{30});
  REQUIRE(on.right.heard.size() == 50);
  CHECK(std::ranges::is_sorted(on.right.heard));
}

TEST_CASE("a short cut loses nothing, a long one ends it for both", "[sim][network]") {
  pair_of_nodes on;
  on.net.cut(on.a, on.b);
  on.say(1);
  on.run(milliseconds{800});
  CHECK(on.right.heard.empty());
  on.net.heal(on.a, on.b);
  on.say(2);
  on.run(milliseconds{30});
  CHECK(on.right.heard == std::vector<std::uint32_t>{1, 2});
  CHECK(on.right.downs == 0);
  on.net.cut(on.a, on.b);
  on.run(milliseconds{1500});
  CHECK(on.left.downs == 1);
  CHECK(on.right.downs == 1);
  on.say(3);
  on.net.heal(on.a, on.b);
  on.run(milliseconds{500});
  CHECK(on.right.heard.size() == 2);
  CHECK(on.fences == 1);
  CHECK(on.left.ups == 1);
  on.net.forgive(on.a, on.b);
  on.run(milliseconds{500});
  CHECK(on.left.ups == 2);
  CHECK(on.right.ups == 2);
  on.say(4);
  on.run(milliseconds{30});
  CHECK(on.right.heard == std::vector<std::uint32_t>{1, 2, 4});
}

TEST_CASE("a fence is between two, and a third hears nothing of it", "[sim][network]") {
  pair_of_nodes on;
  const auto c = on.net.add("c");
  listener third;
  on.net.start(c, third);
  on.net.introduce(on.a, c);
  on.net.introduce(on.b, c);
  on.run(milliseconds{200});
  CHECK(third.ups == 2);
  on.net.cut(on.a, on.b);
  on.run(milliseconds{1500});
  on.net.heal(on.a, on.b);
  on.run(milliseconds{500});
  CHECK(on.fences == 1);
  on.net.forgive(on.a, on.b);
  on.run(milliseconds{500});
  CHECK(on.left.ups == 3);
  CHECK(on.right.ups == 3);
  CHECK(third.ups == 2);
  CHECK(third.downs == 0);
}

TEST_CASE("one that stands still is given up, and acts on what it had when it goes on",
          "[sim][network]") {
  pair_of_nodes on;
  on.net.stop(on.b);
  on.say(1);
  on.run(milliseconds{1500});
  CHECK(on.left.downs == 1);
  CHECK(on.right.downs == 0);
  on.say(2);
  on.net.go_on(on.b);
  CHECK(on.right.heard == std::vector<std::uint32_t>{1});
  on.run(milliseconds{100});
  CHECK(on.right.downs == 1);
  CHECK(on.right.heard.size() == 1);
  CHECK(on.fences == 1);
}

TEST_CASE("a stop that is short is only a pause", "[sim][network]") {
  pair_of_nodes on;
  on.net.stop(on.b);
  on.say(1);
  on.run(milliseconds{900});
  on.net.go_on(on.b);
  on.run(milliseconds{2000});
  CHECK(on.right.heard == std::vector<std::uint32_t>{1});
  CHECK(on.left.downs + on.right.downs == 0);
}

TEST_CASE("a new process on an old place connects anew", "[sim][network]") {
  pair_of_nodes on;
  on.net.kill(on.b);
  on.run(milliseconds{100});
  CHECK(on.left.downs == 1);
  listener fresh;
  on.net.start(on.b, fresh);
  on.run(milliseconds{300});
  CHECK(fresh.ups == 1);
  CHECK(on.left.ups == 2);
  on.say(9);
  on.run(milliseconds{30});
  CHECK(fresh.heard == std::vector<std::uint32_t>{9});
  CHECK(on.right.heard.empty());
  CHECK(on.fences == 0);
}
