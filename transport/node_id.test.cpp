#include "troupe/transport/node_id.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::net;

TEST_CASE("a node id survives its text", "[net]") {
  const node_id id{0x0123456789abcdef, 0x00000000000000ff};
  CHECK(to_string(id) == "0123456789abcdef00000000000000ff");
  CHECK(parse_node_id(to_string(id)) == id);
  CHECK(parse_node_id("").error().code == errc::invalid_argument);
  CHECK(!parse_node_id("0123456789abcdef00000000000000f"));
  CHECK(!parse_node_id("0123456789abcdef00000000000000fg"));
  CHECK(!parse_node_id("0123456789abcdef00000000000000ff0"));
  CHECK(!node_id{});
  CHECK(id);
}

TEST_CASE("an address is a host and a port", "[net]") {
  CHECK(parse_address("10.0.0.1:7600") == address{"10.0.0.1", 7600});
  CHECK(parse_address("front:0") == address{"front", 0});
  CHECK(parse_address("[::1]:65535") == address{"::1", 65535});
  CHECK(to_string(address{"::1", 80}) == "[::1]:80");
  CHECK(to_string(address{"front", 80}) == "front:80");
  for (const auto* bad : {"", ":", ":80", "host", "host:", "host:65536", "host:-1", "host:8x",
                          "::1:80", "[]:80", "host:80 "}) {
    CAPTURE(bad);
    CHECK(!parse_address(bad));
  }
}

TEST_CASE("only this machine is loopback", "[net]") {
  CHECK(is_loopback({"127.0.0.1", 1}));
  CHECK(is_loopback({"127.9.9.9", 1}));
  CHECK(is_loopback({"::1", 1}));
  CHECK(is_loopback({"localhost", 1}));
  CHECK_FALSE(is_loopback({"0.0.0.0", 1}));
  CHECK_FALSE(is_loopback({"127.evil.example", 1}));
  CHECK_FALSE(is_loopback({"10.0.0.1", 1}));
  CHECK_FALSE(is_loopback({"", 1}));
}
