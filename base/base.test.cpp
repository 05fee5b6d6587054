#include "troupe/base/check.hpp"
#include "troupe/base/clock.hpp"
#include "troupe/base/error.hpp"
#include "troupe/base/ids.hpp"
#include "troupe/base/log.hpp"
#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <set>
#include <sys/wait.h>
#include <unistd.h>

using namespace troupe;

TEST_CASE("every error code has a name of its own") {
  std::set<std::string_view> names;
  for (int code = 0; code <= static_cast<int>(errc::internal); ++code)
    names.insert(to_string(static_cast<errc>(code)));
  CHECK(names.size() == static_cast<std::size_t>(errc::internal) + 1);
  CHECK(names.count("unknown") == 0);
}

TEST_CASE("an error prints its code and its note") {
  CHECK(to_string(error{errc::busy, "queue full"}) == "busy: queue full");
  CHECK(to_string(error{errc::busy, ""}) == "busy");
  const result<int> r = fail(errc::not_found, "no model 'x'");
  REQUIRE_FALSE(r);
  CHECK(r.error().code == errc::not_found);
}

TEST_CASE("philox gives the known answers of its authors") {
  // The vectors of Random123's kat_vectors for philox4x32 with 10 rounds.
  using words = std::array<std::uint32_t, 4>;
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) == words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
        words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("a manual clock moves only when told") {
  manual_clock c;
  const auto before = c.now();
  CHECK(c.now() == before);
  c.advance(std::chrono::milliseconds{5});
  CHECK(c.now() - before == std::chrono::milliseconds{5});
}

TEST_CASE("a failed check ends the process by abort") {
  const auto child = fork();
  if (child == 0) {
    set_log_level(log_level::off);
    const int two = 2;
    TROUPE_CHECK(two == 3, "two is {}", two);
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGABRT);
}

TEST_CASE("ids keep their number") {
  CHECK(value(block_id{7}) == 7U);
  CHECK(value(step_id{1}) < value(step_id{2}));
}
