#include "transport/conformance.hpp"
#include "transport/ucx/node.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>

using namespace troupe;
using namespace troupe::net;
using namespace troupe::net::test;
using namespace std::chrono_literals;

namespace {

ucx::node& real(const transport& of) {
  return const_cast<ucx::node&>(dynamic_cast<const ucx::node&>(of));
}

class ucx_world final : public world {
public:
  explicit ucx_world(std::string transports, unsigned cores = 0)
      : transports_{std::move(transports)}, cores_{cores} {}
  [[nodiscard]] std::unique_ptr<transport> add(node_options options, handler& user) override {
    auto made = ucx::make(
        {.node = std::move(options), .lanes = {transports_, "lo"}, .cores = cores_}, user);
    INFO((made ? std::string{} : to_string(made.error())));
    REQUIRE(made);
    return std::move(*made);
  }
  bool wait(const std::function<bool()>& done, duration limit) override {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (!done()) {
      if (std::chrono::steady_clock::now() >= end)
        return false;
      std::this_thread::sleep_for(1ms);
    }
    return true;
  }
  [[nodiscard]] std::uint64_t buffers_out(const transport& of) const override {
    return real(of).buffers_out();
  }
  [[nodiscard]] address nowhere() const override { return {"127.0.0.1", 1}; }
  [[nodiscard]] address anywhere() const override { return {"127.0.0.1", 0}; }

private:
  std::string transports_;
  unsigned cores_;
};

std::size_t entries(const char* folder) {
  const std::filesystem::directory_iterator all{folder};
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

/// Shared memory that this process has mapped, its own and that of peers.
std::size_t segments_mapped() {
  std::ifstream in{"/proc/self/maps"};
  std::size_t found = 0;
  for (std::string line; std::getline(in, line);)
    found += line.find("/dev/shm/") != std::string::npos;
  return found;
}

} // namespace

TEST_CASE("UCX over shared memory keeps the contract", "[net][ucx]") {
  // With many cores a courier calls the user while payloads are copied.
  for (const unsigned cores : {1U, 8U})
    for (const auto& check : conformance_checks()) {
      DYNAMIC_SECTION(check.name << ", " << cores << " cores") {
        ucx_world in{"posix,cma,tcp", cores};
        check.run(in);
      }
    }
}

TEST_CASE("UCX over tcp keeps the contract", "[net][ucx]") {
  for (const auto& check : conformance_checks()) {
    DYNAMIC_SECTION(check.name) {
      ucx_world in{"tcp"};
      check.run(in);
    }
  }
}

TEST_CASE("the chosen lanes are told", "[net][ucx]") {
  const auto lanes_of = [](const std::string& transports) {
    ucx_world in{transports};
    station a{in, "a"};
    station b{in, "b"};
    REQUIRE(a.connect(b.listen()) == b.id());
    const auto rows = a.net->stats();
    REQUIRE(rows.size() == 1);
    return rows[0].lanes;
  };
  CHECK_THAT(lanes_of("posix,cma,tcp"),
             Catch::Contains("posix") && Catch::Contains("cma") && !Catch::Contains("tcp"));
  CHECK_THAT(lanes_of("tcp"), Catch::Contains("tcp") && !Catch::Contains("posix"));
}

TEST_CASE("payloads are aligned where they arrive", "[net][ucx]") {
  ucx_world in{"posix,cma,tcp"};
  station a{in, "a"};
  station b{in, "b"};
  REQUIRE(a.connect(b.listen()) == b.id());
  std::size_t sent = 0;
  for (const std::size_t size : {100, 5000, 70000, 1000000}) {
    REQUIRE(a.net->send(b.id(), noise(13, size), shared_bytes::adopt(noise(size, 1))));
    ++sent;
    REQUIRE(in.wait([&] { return b.heard.copy().messages.size() == sent; }, 20s));
  }
  for (const auto& m : b.heard.copy().messages) {
    CAPTURE(m.payload.size());
    CHECK(m.header == noise(13, m.payload.size()));
    CHECK(reinterpret_cast<std::uintptr_t>(m.payload.data()) % pool_alignment == 0);
  }
}

TEST_CASE("a port that is taken is an error that names it", "[net][ucx]") {
  ucx_world in{"tcp"};
  station a{in, "a"};
  station b{in, "b"};
  const auto where = a.listen();
  const auto got = b.net->listen(where);
  REQUIRE(!got);
  CHECK(got.error().code == errc::io_failure);
  CHECK_THAT(got.error().note, Catch::Contains(to_string(where)));
}

TEST_CASE("a host that does not exist is an error of the dial", "[net][ucx]") {
  ucx_world in{"tcp"};
  station a{in, "a"};
  const auto got = a.connect({"no-such-host.invalid", 7600});
  REQUIRE(!got);
  CHECK(got.error().code == errc::not_found);
}

TEST_CASE("lanes that do not exist are an error at start", "[net][ucx]") {
  recorder heard;
  const auto made = ucx::make({.node = options_of("a"), .lanes = {"nonsense", "lo"}}, heard);
  REQUIRE(!made);
  CHECK(made.error().code == errc::unsupported);
}

TEST_CASE("connections come and go without a leak", "[net][ucx]") {
  ucx_world in{"posix,cma,tcp"};
  station hub{in, "hub"};
  const auto where = hub.listen();
  const auto cycle = [&](int i) {
    station guest{in, "guest" + std::to_string(i)};
    REQUIRE(guest.connect(where) == hub.id());
    const auto is_up = [&] {
      return hub.heard.copy().up.size() == static_cast<std::size_t>(i) + 1;
    };
    REQUIRE(in.wait(is_up, 20s));
    REQUIRE(hub.net->send(guest.id(), noise(8, 1), shared_bytes::adopt(noise(100000, 2))));
    REQUIRE(in.wait([&] { return guest.heard.copy().messages.size() == 1; }, 20s));
  };
  const auto gone = [&] { return real(*hub.net).endpoints() == 0; };
  for (int i = 0; i < 5; ++i)
    cycle(i);
  REQUIRE(in.wait(gone, 10s));
  const auto descriptors = entries("/proc/self/fd");
  const auto segments = segments_mapped();
  CHECK(segments > 0);
  for (int i = 5; i < 45; ++i)
    cycle(i);
  REQUIRE(in.wait(gone, 10s));
  CHECK(entries("/proc/self/fd") <= descriptors + 2);
  CHECK(segments_mapped() <= segments + 1);
  CHECK(real(*hub.net).buffers_out() == 0);
}

TEST_CASE("a thousand connections come and go without a leak", "[net][ucx]") {
  ucx_world in{"posix,cma,tcp"};
  station hub{in, "hub"};
  station guest{in, "guest"};
  const auto where = hub.listen();
  const auto downs = [](const station& of) {
    return of.heard.with([](const recorder::notes& n) { return n.down.size(); });
  };
  std::size_t cycles = 0;
  const auto cycle = [&] {
    REQUIRE(guest.connect(where) == hub.id());
    REQUIRE(guest.net->send(hub.id(), noise(8, cycles), shared_bytes::adopt(noise(20000, 2))));
    guest.net->drain(hub.id());
    ++cycles;
    REQUIRE(in.wait([&] { return downs(hub) == cycles && downs(guest) == cycles; }, 20s));
  };
  const auto gone = [&] {
    return real(*hub.net).endpoints() == 0 && real(*guest.net).endpoints() == 0;
  };
  while (cycles < 20)
    cycle();
  REQUIRE(in.wait(gone, 10s));
  const auto descriptors = entries("/proc/self/fd");
  const auto segments = segments_mapped();
  CHECK(segments > 0);
  while (cycles < 1000)
    cycle();
  REQUIRE(in.wait(gone, 10s));
  CHECK(entries("/proc/self/fd") <= descriptors + 2);
  CHECK(segments_mapped() <= segments + 1);
  CHECK(hub.heard.with([](const recorder::notes& n) { return n.messages.size(); }) == 1000);
  hub.heard.forget_messages();
  CHECK(real(*hub.net).buffers_out() == 0);
}
