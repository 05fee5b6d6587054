#include "transport/wire.hpp"

#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

using namespace troupe;
using namespace troupe::net;

namespace {

std::vector<std::byte> head_of(frame_header header) {
  std::vector<std::byte> head(frame_header_bytes + header.meta_bytes);
  encode_header(header, head);
  return head;
}

frame_header sample() {
  return {.op = opcode::message,
          .meta_bytes = 3,
          .payload_bytes = 0xfffffff0U,
          .token = 0x0102030405060708,
          .sequence = ~std::uint64_t{0},
          .credit = 1};
}

} // namespace

TEST_CASE("a header survives the wire", "[net][wire]") {
  const auto head = head_of(sample());
  CHECK(head.size() == 43);
  CHECK(decode_header(head, 0xfffffff0U) == sample());
  CHECK(head[0] == std::byte{0x54});
  CHECK(head[16] == std::byte{0x08}); // the token, little-endian
}

TEST_CASE("a header that does not fit is refused", "[net][wire]") {
  auto head = head_of(sample());
  for (std::size_t size = 0; size < head.size(); ++size) {
    CAPTURE(size);
    CHECK(decode_header(std::span{head}.first(size), 0xfffffff0U).error().code ==
          errc::corrupt_data);
  }
  CHECK_FALSE(decode_header(head, 0xfffffff1U));
  CHECK_FALSE(decode_header(head, std::size_t{0xfffffff0U} + (std::size_t{1} << 32)));
  const auto with = [&](std::size_t at, int value) {
    auto copy = head;
    copy[at] = std::byte(value);
    return decode_header(copy, 0xfffffff0U);
  };
  CHECK_FALSE(with(0, 0x55));
  CHECK_FALSE(with(2, 0));
  CHECK_FALSE(with(2, 12));
  CHECK_FALSE(with(3, 1));
  CHECK_FALSE(with(12, 1));
  // Another version is for the caller to refuse, in words.
  CHECK(with(1, 9)->version == 9);
}

TEST_CASE("headers of random bytes never lie about sizes", "[net][wire]") {
  splitmix64 random{42};
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::byte> head(random.below(64));
    for (auto& b : head)
      b = std::byte(random.below(256));
    if (head.size() > 3 && random.below(2) == 0) {
      head[0] = std::byte{0x54};
      head[1] = std::byte{protocol_version};
    }
    const auto payload = random.below(100);
    const auto got = decode_header(head, payload);
    if (got && got->version == protocol_version) {
      REQUIRE(got->meta_bytes + frame_header_bytes == head.size());
      REQUIRE(got->payload_bytes == payload);
    }
  }
}

TEST_CASE("a batch is its items, wherever it is cut", "[net][wire]") {
  std::vector<std::byte> body;
  const std::vector<std::byte> bytes(300, std::byte{7});
  const std::size_t sizes[][2] = {{0, 0}, {1, 0}, {0, 1}, {300, 20}, {5, 300}};
  std::vector<std::size_t> ends;
  for (const auto& [header, payload] : sizes) {
    append_batch_item(body, std::span{bytes}.first(header), std::span{bytes}.first(payload));
    ends.push_back(body.size());
  }
  CHECK(body.size() == 5 * batch_item_bytes(0, 0) + 306 + 321);
  for (std::size_t cut = 0; cut <= body.size(); ++cut) {
    const auto batch = shared_bytes::copy_of(std::span{body}.first(cut));
    std::size_t items = 0;
    const auto done = for_each_batch_item(batch, [&](const batch_item& item) {
      CHECK(item.header.size() == sizes[items][0]);
      CHECK(item.payload.size() == sizes[items][1]);
      ++items;
    });
    CAPTURE(cut);
    const bool whole = cut == 0 || std::find(ends.begin(), ends.end(), cut) != ends.end();
    REQUIRE(done.has_value() == whole);
    REQUIRE(items == std::size_t(std::upper_bound(ends.begin(), ends.end(), cut) - ends.begin()));
  }
}
