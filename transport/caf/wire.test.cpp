#include "transport/caf/testing.hpp"

#include <catch2/catch.hpp>

#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
#include <mutex>
#include <thread>

using namespace troupe;
using namespace troupe::net;
using namespace troupe::net::test;
using namespace std::chrono_literals;

namespace {

/// One program; several live in this process, each with a node of its own.
struct program {
  program() : program{program_config{}} {}
  explicit program(program_config c) : cfg{std::move(c)}, sys{cfg}, net{wire::of(sys)}, self{sys} {}

  address listen() {
    auto at = net.listen({"127.0.0.1", 0});
    INFO((at ? std::string{} : sys.render(at.error())));
    REQUIRE(at);
    return *at;
  }
  caf::node_id connect(const address& where) {
    auto node = net.connect(where);
    INFO((node ? std::string{} : sys.render(node.error())));
    REQUIRE(node);
    return *node;
  }
  caf::actor find(const caf::node_id& at, const std::string& name = "server") {
    auto found = net.lookup(at, name);
    INFO((found ? std::string{} : sys.render(found.error())));
    REQUIRE(found);
    return *found;
  }
  /// The answer to a request, or CAF's error.
  template <class Out, class Handle, class... Ts>
  result<Out> ask(const Handle& to, const Ts&... xs) {
    result<Out> out = fail(errc::internal, "no answer");
    self->request(to, 30s, xs...)
        .receive(
            [&](Out x) { out = std::move(x); },
            [&](const caf::error& e) { out = fail(static_cast<errc>(e.code()), sys.render(e)); });
    return out;
  }

  program_config cfg;
  caf::actor_system sys;
  wire& net;
  caf::scoped_actor self;
};

/// b serves, a has its server.
struct couple {
  couple() {
    served = b.sys.spawn(server, 0);
    b.net.publish("server", served);
    where = b.listen();
    node = a.connect(where);
    remote = a.find(node);
  }
  ~couple() {
    for (const auto& actor : ours)
      caf::anon_send_exit(actor, caf::exit_reason::kill);
    caf::anon_send_exit(served, caf::exit_reason::kill);
  }

  program b;
  program a;
  address where;
  caf::node_id node;
  caf::actor served;
  caf::actor remote;
  std::vector<caf::actor> ours;
};

template <class F>
bool eventually(F done, std::chrono::milliseconds limit = 20s) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!done()) {
    if (std::chrono::steady_clock::now() >= end)
      return false;
    std::this_thread::sleep_for(2ms);
  }
  return true;
}

/// Writes down the exits and downs that it gets.
struct witness_notes {
  std::atomic<int> exits = 0;
  std::atomic<int> downs = 0;
  std::atomic<int> notes = 0;
  std::atomic<std::uint8_t> last_code = 0;
};
caf::behavior witness(caf::event_based_actor* self, std::shared_ptr<witness_notes> notes) {
  self->set_exit_handler([=](caf::exit_msg& m) {
    notes->last_code = m.reason.code();
    ++notes->exits;
    if (m.reason == caf::exit_reason::kill)
      self->quit(m.reason);
  });
  self->set_down_handler([=](const caf::down_msg& m) {
    notes->last_code = m.reason.code();
    ++notes->downs;
  });
  return {[=](call_atom, const caf::actor& to) { self->monitor(to); },
          [=](give_atom, const caf::actor& to) { self->link_to(to); },
          [=](note_atom, std::int32_t) { ++notes->notes; },
          [=](quit_atom) { self->quit(caf::exit_reason::user_shutdown); }};
}

shared_bytes pattern(std::size_t size, std::uint8_t seed) {
  std::vector<std::byte> out(size);
  for (std::size_t i = 0; i < size; ++i)
    out[i] = std::byte(static_cast<std::uint8_t>(i * 31 + seed));
  return shared_bytes::adopt(std::move(out));
}

} // namespace

TEST_CASE("requests are answered over the wire", "[net][caf]") {
  couple two;
  const sample x{7, "seven", {}};
  const auto back = two.a.ask<sample>(two.remote, echo_atom::value, x);
  REQUIRE(back);
  CHECK(back->number == 7);
  CHECK(back->text == "seven");
  for (const std::size_t size : {0, 1, 100, 2047, 2048, 7000, 7168, 9000, 70000, 5'000'000}) {
    CAPTURE(size);
    const auto sent = pattern(size, 3);
    const auto got = two.a.ask<shared_bytes>(two.remote, echo_atom::value, sent);
    REQUIRE(got);
    CHECK(*got == sent);
    const std::vector<char> inside(size, 'x');
    const auto same = two.a.ask<std::vector<char>>(two.remote, echo_atom::value, inside);
    REQUIRE(same);
    CHECK(*same == inside);
  }
}

TEST_CASE("a typed actor keeps its type", "[net][caf]") {
  couple two;
  const auto local = two.b.sys.spawn(add, 0);
  two.b.net.publish("adder", local);
  auto far = two.a.net.lookup<adder>(two.node, "adder");
  REQUIRE(far);
  CHECK(two.a.ask<std::int32_t>(*far, 2, 40) == 42);
  const auto wrong = two.a.net.lookup<adder>(two.node, "server");
  REQUIRE(!wrong);
  CHECK(wrong.error().code() == static_cast<std::uint8_t>(errc::conflict));
  const auto nobody = two.a.net.lookup(two.node, "nobody");
  REQUIRE(!nobody);
  CHECK(nobody.error().code() == static_cast<std::uint8_t>(errc::not_found));
  caf::anon_send_exit(local, caf::exit_reason::kill);
}

TEST_CASE("handles inside messages call back", "[net][caf]") {
  couple two;
  const auto notes = std::make_shared<witness_notes>();
  two.ours.push_back(two.a.sys.spawn(witness, notes));
  for (std::int32_t i = 0; i < 20; ++i)
    two.a.self->send(two.remote, call_atom::value, two.ours[0], i);
  CHECK(eventually([&] { return notes->notes == 20; }));
  // A handle that comes home is the actor itself.
  const auto back = two.a.ask<sample>(two.remote, echo_atom::value, sample{1, "", {two.ours[0]}});
  REQUIRE(back);
  REQUIRE(back->handles.size() == 1);
  CHECK(back->handles[0] == two.ours[0]);
}

TEST_CASE("messages of mixed sizes keep their order", "[net][caf]") {
  couple two;
  std::string want;
  for (std::int32_t i = 0; i < 600; ++i) {
    if (i % 7 == 0)
      two.a.self->send(two.remote, note_atom::value, i, pattern(i % 2 == 0 ? 300'000 : 9000, 1));
    else
      two.a.self->send(two.remote, note_atom::value, i);
    want += std::to_string(i) + ' ';
  }
  CHECK(two.a.ask<std::string>(two.remote, give_atom::value) == want);
}

TEST_CASE("a monitor hears the end of a remote actor once, with its reason", "[net][caf]") {
  couple two;
  const auto notes = std::make_shared<witness_notes>();
  two.ours.push_back(two.a.sys.spawn(witness, notes));
  two.a.self->send(two.ours[0], call_atom::value, two.remote);
  REQUIRE(two.a.ask<std::int32_t>(two.remote, echo_atom::value, 1) == 1);
  two.a.self->send(two.remote, quit_atom::value);
  REQUIRE(eventually([&] { return notes->downs == 1; }));
  CHECK(notes->last_code == static_cast<std::uint8_t>(caf::exit_reason::user_shutdown));
  std::this_thread::sleep_for(50ms);
  CHECK(notes->downs == 1);
  CHECK(eventually([&] { return two.a.net.proxies(two.node) == 0; }));
  // Requests to it are answered with an error, by the old handle and by name.
  CHECK(!two.a.ask<std::int32_t>(two.remote, echo_atom::value, 1));
}

TEST_CASE("links work both ways, once each", "[net][caf]") {
  couple two;
  const auto notes = std::make_shared<witness_notes>();
  two.ours.push_back(two.a.sys.spawn(witness, notes));
  SECTION("the remote actor ends") {
    two.a.self->send(two.ours[0], give_atom::value, two.remote);
    std::this_thread::sleep_for(50ms);
    REQUIRE(two.a.ask<std::int32_t>(two.remote, echo_atom::value, 1) == 1);
    two.a.self->send(two.remote, quit_atom::value);
    REQUIRE(eventually([&] { return notes->exits >= 1; }));
    std::this_thread::sleep_for(100ms);
    CHECK(notes->exits == 1);
    CHECK(notes->last_code == static_cast<std::uint8_t>(caf::exit_reason::user_shutdown));
  }
  SECTION("the local actor ends") {
    const auto there = std::make_shared<witness_notes>();
    const auto far = two.b.sys.spawn(witness, there);
    two.b.net.publish("far", far);
    two.a.self->send(two.ours[0], give_atom::value, two.a.find(two.node, "far"));
    // The link is known there when the watcher has a proxy of ours.
    REQUIRE(eventually([&] { return two.b.net.proxies(two.a.sys.node()) > 0; }));
    std::this_thread::sleep_for(100ms);
    two.a.self->send(two.ours[0], quit_atom::value);
    REQUIRE(eventually([&] { return there->exits >= 1; }));
    std::this_thread::sleep_for(100ms);
    CHECK(there->exits == 1);
    caf::anon_send_exit(far, caf::exit_reason::kill);
  }
  SECTION("an exit is sent") {
    two.a.self->send_exit(two.remote, caf::exit_reason::user_shutdown);
    two.a.self->monitor(two.remote);
    bool down = false;
    two.a.self->receive([&](const caf::down_msg&) { down = true; });
    CHECK(down);
  }
}

TEST_CASE("the handle of a third node is dialled when it is used", "[net][caf]") {
  couple two;
  program c;
  c.listen();
  const auto at_c = c.sys.spawn(server, 0);
  c.net.publish("server", at_c);
  // c and b are connected, a and b are; a gets the handle of c's actor from b.
  c.connect(two.where);
  // b has not dialled c: it can ask once c has said who it is.
  REQUIRE(eventually([&] { return two.b.net.lookup(c.sys.node(), "server").engaged(); }));
  two.b.net.publish("of c", two.b.find(c.sys.node()));
  const auto third = two.a.find(two.node, "of c");
  CHECK(third.node() == c.sys.node());
  CHECK(two.a.ask<std::int32_t>(third, echo_atom::value, 33) == 33);
  CHECK(two.a.net.stats().size() == 2);
  caf::anon_send_exit(at_c, caf::exit_reason::kill);
}

TEST_CASE("requests to a node that leaves end with an error", "[net][caf]") {
  couple two;
  auto failed = std::make_shared<std::atomic<int>>(0);
  two.ours.push_back(two.a.sys.spawn(
      [failed](caf::event_based_actor* self, const caf::actor& to) -> caf::behavior {
        for (std::int32_t i = 0; i < 10; ++i)
          self->request(to, caf::infinite, hold_atom::value, i)
              .then([](std::int32_t) {}, [failed](const caf::error&) { ++*failed; });
        return {[](int) {}};
      },
      two.remote));
  REQUIRE(two.a.ask<std::int32_t>(two.remote, echo_atom::value, 1) == 1);
  two.a.net.disconnect(two.node);
  CHECK(eventually([&] { return *failed == 10; }));
  CHECK(eventually([&] { return two.a.net.proxies(two.node) == 0; }));
  CHECK(!two.a.ask<std::int32_t>(two.remote, echo_atom::value, 5));
  // It may be connected anew.
  const auto again = two.a.find(two.a.connect(two.where));
  CHECK(two.a.ask<std::int32_t>(again, echo_atom::value, 5) == 5);
}

TEST_CASE("what cannot be serialised is an error for the requester", "[net][caf]") {
  couple two;
  const auto began = std::chrono::steady_clock::now();
  CHECK(!two.a.ask<std::vector<std::int32_t>>(two.remote, give_atom::value, std::int32_t{1}));
  CHECK(!two.a.ask<std::int32_t>(two.remote, std::vector<std::int32_t>{1}));
  CHECK(std::chrono::steady_clock::now() - began < 10s);
  CHECK(two.a.ask<std::int32_t>(two.remote, echo_atom::value, 2) == 2);
}

TEST_CASE("a node that is not known is an error, not a wait", "[net][caf]") {
  program a;
  const auto nobody = a.net.connect({"127.0.0.1", 1});
  REQUIRE(!nobody);
  CHECK(nobody.error().code() == static_cast<std::uint8_t>(errc::peer_down));
  program b;
  const auto unknown = a.net.lookup(b.sys.node(), "server");
  REQUIRE(!unknown);
  CHECK(unknown.error().code() == static_cast<std::uint8_t>(errc::peer_down));
}

TEST_CASE("what does not fit is refused with a reason", "[net][caf]") {
  program_config other;
  const auto refused = [&](errc code) {
    program b;
    program a{std::move(other)};
    const auto got = a.net.connect(b.listen());
    REQUIRE(!got);
    INFO(a.sys.render(got.error()));
    CHECK(got.error().code() == static_cast<std::uint8_t>(code));
  };
  SECTION("other message types") {
    other.add_message_type<std::vector<sample>>("samples");
    refused(errc::conflict);
  }
  SECTION("a secret on one side") {
    const std::string path = std::filesystem::temp_directory_path() / "troupe_wire_test.secret";
    std::ofstream{path} << "0123456789abcdef\n";
    REQUIRE(::chmod(path.c_str(), 0600) == 0);
    caf::put(other.content, "wire.secret-file", path);
    refused(errc::unauthorized);
  }
  SECTION("a secret that others can read") {
    const std::string path = std::filesystem::temp_directory_path() / "troupe_wire_open.secret";
    std::ofstream{path} << "0123456789abcdef\n";
    REQUIRE(::chmod(path.c_str(), 0644) == 0);
    caf::put(other.content, "wire.secret-file", path);
    refused(errc::unauthorized);
  }
  SECTION("no secret, and an address that is not loopback") {
    program a;
    const auto at = a.net.listen({"0.0.0.0", 0});
    REQUIRE(!at);
    CHECK(at.error().code() == static_cast<std::uint8_t>(errc::unauthorized));
  }
}

TEST_CASE("a flood is bounded and answered", "[net][caf]") {
  program_config small;
  caf::put(small.content, "wire.queue-bytes", 1 << 20);
  caf::put(small.content, "wire.window-bytes", 1 << 20);
  program b;
  b.net.publish("server", b.sys.spawn(server, 0));
  program a{std::move(small)};
  const auto far = a.find(a.connect(b.listen()));
  auto good = std::make_shared<std::atomic<int>>(0);
  auto busy = std::make_shared<std::atomic<int>>(0);
  constexpr int requests = 400;
  const auto flooder = a.sys.spawn(
      [=](caf::event_based_actor* self, const caf::actor& to) -> caf::behavior {
        const auto bytes = pattern(65536, 9);
        for (int i = 0; i < requests; ++i)
          self->request(to, caf::infinite, echo_atom::value, bytes)
              .then([=](const shared_bytes&) { ++*good; },
                    [=](const caf::error& e) {
                      if (e.code() == static_cast<std::uint8_t>(errc::busy))
                        ++*busy;
                    });
        return {[](int) {}};
      },
      far);
  REQUIRE(eventually([&] { return *good + *busy == requests; }, 60s));
  CHECK(*good > 0);
  for (const auto& row : a.net.stats())
    CHECK(row.queued_bytes <= (1U << 20) + 65536 + 8192);
  caf::anon_send_exit(flooder, caf::exit_reason::kill);
  caf::anon_send_exit(far, caf::exit_reason::kill);
}

TEST_CASE("a full queue drops what has no answer, or keeps it", "[net][caf]") {
  const bool keep = GENERATE(false, true);
  CAPTURE(keep);
  program_config small;
  caf::put(small.content, "wire.queue-bytes", 1 << 20);
  caf::put(small.content, "wire.window-bytes", 1 << 20);
  caf::put(small.content, "wire.full-queue", std::string{keep ? "keep" : "drop"});
  program b;
  b.net.publish("server", b.sys.spawn(server, 0));
  program a{std::move(small)};
  const auto far = a.find(a.connect(b.listen()));
  const auto bytes = pattern(65536, 9);
  std::string all;
  for (std::int32_t i = 0; i < 1000; ++i) {
    a.self->send(far, note_atom::value, i, bytes);
    all += std::to_string(i) + ' ';
  }
  // A request may be turned away while the queue is full.
  result<std::string> got = fail(errc::busy, "");
  REQUIRE(eventually([&] {
    got = a.ask<std::string>(far, give_atom::value);
    return got.has_value();
  }));
  const auto arrived = static_cast<std::uint64_t>(std::count(got->begin(), got->end(), ' '));
  CHECK(arrived + a.net.messages_dropped() == 1000);
  CHECK((a.net.messages_dropped() == 0) == keep);
  CHECK((*got == all) == keep);
  caf::anon_send_exit(far, caf::exit_reason::kill);
}

TEST_CASE("a chosen actor runs on the progress thread", "[net][caf]") {
  couple two;
  two.b.net.run_inline(two.served->address());
  for (std::int32_t i = 0; i < 200; ++i)
    REQUIRE(two.a.ask<std::int32_t>(two.remote, echo_atom::value, i) == i);
}

TEST_CASE("what happens to peers is told in its order", "[net][caf]") {
  program b{[] {
    program_config c;
    caf::put(c.content, "wire.name", std::string{"b"});
    return c;
  }()};
  const auto where = b.listen();
  std::mutex mutex;
  std::vector<std::string> told;
  const auto count = [&] {
    const std::lock_guard guard{mutex};
    return told.size();
  };
  std::promise<result<caf::node_id>> connected;
  std::promise<result<caf::actor>> found;
  program a;
  {
    a.net.observe([&](const wire_event& what) {
      const std::lock_guard guard{mutex};
      const bool up = what.what == wire_event::kind::up;
      told.push_back((up ? "up " : "down ") + what.name + " " +
                     std::string{to_string(what.why.code)});
    });
    a.net.connect(where, [&](const result<caf::node_id>& node) {
      // It is told before the one who dialled is.
      CHECK(count() == 1);
      connected.set_value(node);
    });
    const auto node = connected.get_future().get();
    REQUIRE(node);
    a.net.lookup<caf::actor>(*node, "nobody",
                             [&](const result<caf::actor>& actor) { found.set_value(actor); });
    const auto actor = found.get_future().get();
    REQUIRE_FALSE(actor);
    CHECK(actor.error().code == errc::not_found);
    b.net.disconnect(a.sys.node());
    for (int i = 0; i < 1000 && count() < 2; ++i)
      std::this_thread::sleep_for(5ms);
    a.net.observe({});
  }
  CHECK(told == std::vector<std::string>{"up b none", "down b draining"});
}

TEST_CASE("nodes agree on the parts of their configuration, clients have none", "[net][caf]") {
  const auto with = [](const std::vector<config_part>& parts) {
    program_config c;
    wire::agree_on(c, parts);
    return c;
  };
  program b{with({{"models.bard", ~std::uint64_t{0}}, {"routing", 2}})};
  const auto where = b.listen();
  program same{with({{"models.bard", ~std::uint64_t{0}}, {"routing", 2}})};
  CHECK(same.net.connect(where));
  program other{with({{"models.bard", 1}, {"routing", 2}})};
  const auto refused = other.net.connect(where);
  REQUIRE_FALSE(refused);
  CHECK(other.sys.render(refused.error()).find("in: models.bard;") != std::string::npos);
  program client;
  CHECK(client.net.connect(where));
}

TEST_CASE("programs that meet a thousand times keep nothing of each other", "[net][caf]") {
  program host;
  const auto served = host.sys.spawn(server, 0);
  host.net.publish("server", served);
  const auto where = host.listen();
  program guest;
  const auto far_id = guest.sys.node();
  for (std::int32_t i = 0; i < 1000; ++i) {
    const auto node = guest.connect(where);
    const auto remote = guest.find(node);
    // The host answers an actor of the guest, and so has a proxy of it.
    REQUIRE(guest.ask<std::int32_t>(remote, echo_atom::value, i) == i);
    REQUIRE(guest.net.proxies(node) == 1);
    REQUIRE(host.net.proxies(far_id) == 1);
    guest.net.disconnect(node);
    REQUIRE(eventually([&] {
      return guest.net.proxies(node) == 0 && host.net.proxies(far_id) == 0 &&
             guest.net.stats().empty() && host.net.stats().empty();
    }));
  }
  caf::anon_send_exit(served, caf::exit_reason::kill);
}
