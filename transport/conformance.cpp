#include "transport/conformance.hpp"
#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstring>

namespace troupe::net::test {

namespace {

using namespace std::chrono_literals;

constexpr auto long_enough = 60s;

std::span<const std::byte> bytes_of(const std::uint64_t& number) {
  return std::as_bytes(std::span{&number, 1});
}

std::uint64_t number_in(std::span<const std::byte> header) {
  std::uint64_t out = 0;
  if (header.size() >= sizeof out)
    std::memcpy(&out, header.data(), sizeof out);
  return out;
}

std::size_t messages(const station& of) {
  return of.heard.with([](const recorder::notes& n) { return n.messages.size(); });
}
std::size_t ups(const station& of) {
  return of.heard.with([](const recorder::notes& n) { return n.up.size(); });
}
std::size_t downs(const station& of) {
  return of.heard.with([](const recorder::notes& n) { return n.down.size(); });
}
std::size_t refusals(const station& of) {
  return of.heard.with([](const recorder::notes& n) { return n.refused.size(); });
}

/// Connects a to b and waits until both are up.
void join(station& a, station& b, const address& where) {
  const auto before = ups(b);
  const auto got = a.connect(where);
  REQUIRE(got == b.id());
  REQUIRE(a.in.wait([&] { return ups(b) > before; }, long_enough));
}

void send_all(station& from, const node_id& to, const std::vector<std::size_t>& sizes) {
  for (std::uint64_t i = 0; i < sizes.size(); ++i) {
    const auto sent =
        from.net->send(to, bytes_of(i), shared_bytes::adopt(noise(sizes[i], i)), pressure::insist);
    REQUIRE(sent);
  }
}

void check_all(const station& at, const node_id& from, const std::vector<std::size_t>& sizes) {
  std::uint64_t next = 0;
  for (const auto& m : at.heard.copy().messages) {
    if (m.from != from)
      continue;
    REQUIRE(next < sizes.size());
    REQUIRE(number_in(m.header) == next);
    REQUIRE(m.payload == shared_bytes::adopt(noise(sizes[next], next)));
    ++next;
  }
  REQUIRE(next == sizes.size());
}

void keeps_order_both_ways(world& in) {
  station a{in, "a"};
  station b{in, "b"};
  join(a, b, b.listen());
  const auto one = mixed_sizes(1);
  const auto two = mixed_sizes(2);
  send_all(a, b.id(), one);
  send_all(b, a.id(), two);
  REQUIRE(
      in.wait([&] { return messages(a) == two.size() && messages(b) == one.size(); }, long_enough));
  check_all(b, a.id(), one);
  check_all(a, b.id(), two);
  a.heard.forget_messages();
  b.heard.forget_messages();
  // Nothing stays behind: buffers, queues, frames out of order.
  CHECK(in.wait(
      [&] {
        return in.buffers_out(*a.net) == 0 && in.buffers_out(*b.net) == 0 &&
               a.net->stats()[0].queued_bytes == 0;
      },
      5s));
  const auto rows = a.net->stats();
  REQUIRE(rows.size() == 1);
  CHECK(rows[0].messages_sent == one.size());
  CHECK(rows[0].messages_received == two.size());
  CHECK(rows[0].reorder_frames == 0);
}

void answers_from_the_handler(world& in) {
  station a{in, "a"};
  station b{in, "b"};
  // Checks belong to the thread of the test; a message that is not sent is missed below.
  b.heard.on_message = [&](const recorder::received& m) {
    static_cast<void>(b.net->send(m.from, m.header, m.payload));
  };
  a.heard.on_message = [&](const recorder::received& m) {
    const auto number = number_in(m.header) + 1;
    if (number < 200)
      static_cast<void>(a.net->send(m.from, bytes_of(number), m.payload));
  };
  join(a, b, b.listen());
  REQUIRE(a.net->send(b.id(), bytes_of(0), shared_bytes::adopt(noise(100, 1))));
  REQUIRE(in.wait([&] { return messages(a) == 200; }, long_enough));
  CHECK(a.heard.copy().messages.back().payload == shared_bytes::adopt(noise(100, 1)));
}

void packs_small_messages(world& in) {
  station a{in, "a"};
  station b{in, "b"};
  join(a, b, b.listen());
  // From one job, so that they wait together where the transport queues.
  for (std::uint64_t i = 0; i < 5000; ++i)
    REQUIRE(a.net->send(b.id(), bytes_of(i), shared_bytes::adopt(noise(i % 50, i))));
  REQUIRE(in.wait([&] { return messages(b) == 5000; }, long_enough));
  std::uint64_t next = 0;
  for (const auto& m : b.heard.copy().messages) {
    REQUIRE(number_in(m.header) == next);
    REQUIRE(m.payload == shared_bytes::adopt(noise(next % 50, next)));
    ++next;
  }
}

void joins_three_and_gossips(world& in) {
  station a{in, "a"};
  station b{in, "b"};
  station c{in, "c"};
  const auto at_a = a.listen();
  const auto at_b = b.listen();
  const auto at_c = c.listen();
  join(b, a, at_a);
  join(c, a, at_a);
  const auto heard = [](const station& who, const station& of, const address& where) {
    return who.heard.with([&](const recorder::notes& n) {
      return std::any_of(n.heard.begin(), n.heard.end(), [&](const known_node& k) {
        return k.id == of.id() && k.listens_at == where && k.name == of.net->self().name;
      });
    });
  };
  REQUIRE(in.wait([&] { return heard(b, c, at_c) && heard(c, b, at_b); }, long_enough));
  join(b, c, at_c);
  const auto sizes = mixed_sizes(3);
  for (const auto* pair : {&a, &b, &c})
    for (const auto* to : {&a, &b, &c})
      if (pair != to)
        send_all(const_cast<station&>(*pair), to->id(), sizes);
  REQUIRE(in.wait(
      [&] {
        return messages(a) == 2 * sizes.size() && messages(b) == 2 * sizes.size() &&
               messages(c) == 2 * sizes.size();
      },
      long_enough));
  check_all(a, b.id(), sizes);
  check_all(a, c.id(), sizes);
  check_all(b, c.id(), sizes);
  check_all(c, a.id(), sizes);
}

void refuses_with_a_reason(world& in) {
  station a{in, "a"};
  const auto where = a.listen();
  const auto try_as = [&](const node_options& options) {
    station b{in, options};
    const auto before = refusals(a);
    const auto got = b.connect(where);
    REQUIRE_FALSE(got);
    CHECK(in.wait([&] { return refusals(a) == before + 1; }, long_enough));
    REQUIRE(refusals(b) == 1);
    CHECK(b.heard.copy().refused[0].why == got.error());
    CHECK(a.heard.copy().refused.back().why == got.error());
    CHECK(ups(b) == 0);
    return got.error();
  };
  auto options = options_of("b");
  options.self.types_hash = 43;
  CHECK(try_as(options).code == errc::conflict);

  options = options_of("b");
  options.self.config = {{"models", 1}, {"routing", 9}};
  const auto why = try_as(options);
  CHECK(why.code == errc::conflict);
  CHECK(why.note.find("routing, numerics") != std::string::npos);
  CHECK(why.note.find("models") == std::string::npos);

  options = options_of("b");
  options.self.secret.back() = std::byte{1};
  CHECK(try_as(options).code == errc::unauthorized);
  options.self.secret.clear();
  CHECK(try_as(options).code == errc::unauthorized);

  options = options_of("b");
  options.self.id = a.id();
  CHECK(try_as(options).code == errc::conflict);
  CHECK(try_as(options_of("a")).note.find("two nodes are named 'a'") != std::string::npos);
  CHECK(ups(a) == 0);

  // None of it stands in the way of one that fits, and of another one with its name.
  station b{in, "b"};
  join(b, a, where);
  CHECK(try_as(options_of("b")).code == errc::conflict);
  CHECK(downs(a) == 0);
}

void dials_end(world& in) {
  station a{in, "a"};
  station b{in, "b"};
  CHECK(a.connect(in.nowhere()).error().code == errc::peer_down);
  const auto where = b.listen();
  CHECK(b.net->listen(in.anywhere()).error().code == errc::conflict);
  CHECK(a.net->listen(where).error().code == errc::io_failure);
  join(a, b, where);
  CHECK(a.connect(where) == b.id());                      // again: the same connection
  CHECK(b.connect(where).error().code == errc::conflict); // itself
  CHECK(ups(a) == 1);
  CHECK(ups(b) == 1);
  CHECK(a.net->send(node_id{1, 2}, {}).error().code == errc::peer_down);
  auto bare = options_of("c");
  bare.self.secret.clear();
  station c{in, bare};
  CHECK(c.net->listen({"10.1.2.3", 0}).error().code == errc::unauthorized);
}

void resolves_simultaneous_dials(world& in) {
  for (std::uint64_t round = 0; round < 10; ++round) {
    station a{in, "a"};
    station b{in, "b"};
    const auto at_a = a.listen();
    const auto at_b = b.listen();
    static_cast<void>(a.net->dial(at_b));
    static_cast<void>(b.net->dial(at_a));
    const auto done = [](const station& s) {
      return s.heard.with([](const recorder::notes& n) { return n.dialed.size() == 1; });
    };
    REQUIRE(in.wait([&] { return done(a) && done(b) && ups(a) == 1 && ups(b) == 1; }, long_enough));
    CHECK(a.heard.copy().dialed[0].outcome == b.id());
    CHECK(b.heard.copy().dialed[0].outcome == a.id());
    // Both keep the same one.
    CHECK(a.heard.copy().up[0].dialed_here != b.heard.copy().up[0].dialed_here);
    CHECK(a.net->send(b.id(), bytes_of(round)));
    CHECK(b.net->send(a.id(), bytes_of(round)));
    CHECK(in.wait([&] { return messages(a) == 1 && messages(b) == 1; }, long_enough));
    CHECK(refusals(a) + refusals(b) == 0);
  }
}

void pushes_back(world& in) {
  auto options = options_of("b");
  options.limits.window_bytes = 1 << 20;
  options.limits.held_bytes_max = 1 << 20;
  auto few = options_of("a");
  few.limits.queue_bytes_max = 1 << 20;
  station a{in, few};
  station b{in, options};
  join(a, b, b.listen());
  // The receiver holds on to what it gets, so credit ends, and then the queue is full.
  std::uint64_t sent = 0;
  error why;
  const auto full = [&] {
    const auto got = a.net->send(b.id(), bytes_of(sent), shared_bytes::adopt(noise(65536, sent)));
    if (got)
      ++sent;
    else
      why = got.error();
    return !got && messages(b) >= 16;
  };
  REQUIRE(in.wait(full, long_enough));
  CHECK(why.code == errc::busy);
  static_cast<void>(in.wait([] { return false; }, 300ms));
  const auto stuck = messages(b);
  CHECK(stuck < 64);
  while (a.net->send(b.id(), bytes_of(sent), shared_bytes::adopt(noise(65536, sent))))
    ++sent;
  CHECK(sent < 64 + 16 + 16);
  CHECK(a.net->stats()[0].queued_bytes <= (1 << 20));
  // What must go is taken all the same, and what is too large never is.
  CHECK(a.net->send(b.id(), bytes_of(sent++), shared_bytes::adopt(noise(9, 9)), pressure::insist));
  const std::vector<std::byte> big(header_bytes_max + 1);
  CHECK(a.net->send(b.id(), big).error().code == errc::limit_exceeded);
  const auto before = a.heard.copy().drained;
  const auto all = [&] {
    b.heard.forget_messages();
    return a.heard.copy().drained > before && a.net->stats()[0].queued_bytes == 0;
  };
  CHECK(in.wait(all, long_enough));
}

void drains_without_loss(world& in) {
  station a{in, "a"};
  station b{in, "b"};
  const auto where = b.listen();
  const auto sizes = mixed_sizes(5);
  for (int round = 0; round < 2; ++round) {
    a.heard.forget_messages();
    b.heard.forget_messages();
    join(a, b, where); // after a drain, the same ids connect again
    send_all(a, b.id(), sizes);
    send_all(b, a.id(), sizes);
    a.net->drain(b.id());
    REQUIRE(in.wait(
        [&] { return downs(a) == std::size_t(round) + 1 && downs(b) == std::size_t(round) + 1; },
        long_enough));
    CHECK(a.heard.copy().down.back().why.code == errc::draining);
    CHECK(b.heard.copy().down.back().why.code == errc::draining);
    check_all(b, a.id(), sizes);
    check_all(a, b.id(), sizes);
    CHECK(a.net->send(b.id(), {}).error().code == errc::peer_down);
  }
}

void stops_without_loss(world& in) {
  station b{in, "b"};
  const auto where = b.listen();
  const auto sizes = mixed_sizes(6);
  {
    station a{in, "a"};
    join(a, b, where);
    send_all(a, b.id(), sizes);
    a.net->stop();
    REQUIRE(in.wait([&] { return messages(b) == sizes.size(); }, long_enough));
    check_all(b, a.id(), sizes);
  }
  REQUIRE(in.wait([&] { return downs(b) == 1; }, long_enough));
  CHECK(b.heard.copy().down[0].why.code == errc::draining);
}

void closes_and_fences(world& in) {
  station a{in, "a"};
  station b{in, "b"};
  const auto where = a.listen();
  join(b, a, where);
  // With traffic of every size under way, in both directions.
  send_all(a, b.id(), mixed_sizes(7));
  send_all(b, a.id(), mixed_sizes(8));
  a.net->close(b.id());
  REQUIRE(in.wait([&] { return downs(a) == 1 && downs(b) == 1; }, long_enough));
  CHECK(a.heard.copy().down[0].why.code == errc::cancelled);
  CHECK(b.heard.copy().down[0].why.code == errc::peer_down);
  const auto got = b.connect(where);
  REQUIRE_FALSE(got);
  // Either end may be the one that refuses: both have fenced the other.
  CHECK(got.error().code == errc::peer_down);
  CHECK(ups(a) == 1);
  a.net->forgive(b.id());
  CHECK_FALSE(b.connect(where)); // b has not forgiven a
  b.net->forgive(a.id());
  REQUIRE(b.connect(where));
  REQUIRE(in.wait([&] { return ups(a) == 2 && ups(b) == 2; }, long_enough));
  a.heard.forget_messages();
  b.heard.forget_messages();
  CHECK(in.wait([&] { return in.buffers_out(*a.net) == 0 && in.buffers_out(*b.net) == 0; }, 5s));
}

void runs_jobs_in_order(world& in) {
  station a{in, "a"};
  std::mutex mutex;
  std::vector<int> ran;
  for (int i = 0; i < 100; ++i)
    a.net->post([&, i] {
      const std::lock_guard guard{mutex};
      ran.push_back(i);
    });
  CHECK(in.wait(
      [&] {
        const std::lock_guard guard{mutex};
        return ran.size() == 100;
      },
      long_enough));
  CHECK(std::is_sorted(ran.begin(), ran.end()));
}

constexpr conformance_check checks[] = {
    {"order both ways with mixed sizes", keeps_order_both_ways},
    {"answers from the handler", answers_from_the_handler},
    {"small messages in batches", packs_small_messages},
    {"three nodes and gossip", joins_three_and_gossips},
    {"refused hellos", refuses_with_a_reason},
    {"dials that end", dials_end},
    {"simultaneous dials", resolves_simultaneous_dials},
    {"back-pressure", pushes_back},
    {"drain loses nothing", drains_without_loss},
    {"stop loses nothing", stops_without_loss},
    {"close under traffic, fenced", closes_and_fences},
    {"jobs in order", runs_jobs_in_order},
};

} // namespace

std::span<const conformance_check> conformance_checks() { return checks; }

} // namespace troupe::net::test
