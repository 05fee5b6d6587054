#include "troupe/transport/buffer_pool.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

using namespace troupe::net;

TEST_CASE("buffers come back from the last owner", "[net][pool]") {
  buffer_pool pool;
  auto buffer = pool.take(5000);
  CHECK(buffer.bytes().size() == 5000);
  const auto* where = buffer.bytes().data();
  auto shared = std::move(buffer).share();
  auto part = shared.slice(100, 50);
  CHECK(part.data() == where + 100);
  shared = {};
  CHECK(pool.stats().buffers_out == 1);
  CHECK(pool.stats().bytes_out == 5120);
  part = {};
  CHECK(pool.stats().buffers_out == 0);
  CHECK(pool.stats().bytes_kept == 5120);
  // The next taker of the class gets the same memory.
  auto again = pool.take(5120);
  CHECK(again.bytes().data() == where);
  CHECK(pool.stats().bytes_kept == 0);
  // Another class does not.
  CHECK(pool.take(5121).bytes().data() != where);
}

TEST_CASE("buffers of every class are aligned", "[net][pool]") {
  buffer_pool pool;
  for (std::size_t size = 1; size <= std::size_t{128} << 20; size += size / 3 + 1) {
    CAPTURE(size);
    const auto before = pool.stats().bytes_out;
    const auto buffer = pool.take(size);
    CHECK(reinterpret_cast<std::uintptr_t>(buffer.bytes().data()) % pool_alignment == 0);
    const auto capacity = pool.stats().bytes_out - before;
    CHECK(capacity >= size);
    CHECK(capacity <= std::max<std::size_t>(256, size + size / 4));
  }
}

TEST_CASE("a pool keeps no more than its bound", "[net][pool]") {
  buffer_pool pool{10000};
  {
    const auto a = pool.take(8000);
    const auto b = pool.take(8000);
    const auto huge = pool.take((std::size_t{64} << 20) + 1);
    CHECK(pool.stats().buffers_out == 3);
    CHECK(pool.stats().bytes_out == 2 * 8192 + (64 << 20) + 1);
  }
  CHECK(pool.stats().buffers_out == 0);
  CHECK(pool.stats().bytes_out == 0);
  CHECK(pool.stats().bytes_kept == 8192);
}

TEST_CASE("buffers from 32 KiB on share huge pages and do not overlap", "[net][pool]") {
  constexpr std::size_t huge_page_bytes = std::size_t{2} << 20;
  // Half of it may be slabs: two of them.
  buffer_pool pool{4 * huge_page_bytes};
  const auto page_of = [](const pooled_buffer& of) {
    return reinterpret_cast<std::uintptr_t>(of.bytes().data()) / huge_page_bytes;
  };
  std::vector<pooled_buffer> taken;
  std::map<std::uintptr_t, int> pages;
  for (int i = 0; i < 150; ++i) {
    taken.push_back(pool.take(40000));
    std::memset(taken.back().bytes().data(), i, 40000);
    ++pages[page_of(taken.back())];
  }
  // 40 KiB each: 51 to a page. The rest is the system's.
  CHECK(std::count_if(pages.begin(), pages.end(), [](auto& p) { return p.second == 51; }) == 2);
  for (int i = 0; i < 150; ++i) {
    const auto bytes = taken[i].bytes();
    REQUIRE(std::all_of(bytes.begin(), bytes.end(), [&](auto b) { return b == std::byte(i); }));
  }
  taken.clear();
  CHECK(pool.stats().buffers_out == 0);
  CHECK(pool.stats().bytes_kept == 150 * 40960);
  // Pieces of slabs are kept above the bound too, others are not.
  buffer_pool small{2 * huge_page_bytes};
  for (int i = 0; i < 150; ++i)
    taken.push_back(small.take(40000));
  taken.clear();
  CHECK(small.stats().bytes_kept <= 2 * huge_page_bytes + 51 * 40960);
  CHECK(small.stats().bytes_kept >= 51 * 40960);
}

TEST_CASE("a buffer outlives its pool", "[net][pool]") {
  shared_bytes kept;
  {
    buffer_pool pool;
    auto buffer = pool.take(1);
    buffer.bytes()[0] = std::byte{42};
    kept = std::move(buffer).share();
  }
  CHECK(kept.data()[0] == std::byte{42});
}

TEST_CASE("a meter knows what is held and when it is back in bounds", "[net][pool]") {
  buffer_pool pool;
  auto meter = std::make_shared<held_meter>();
  meter->bytes_max = 1000;
  int calls = 0;
  meter->back_in_bounds = [&] { ++calls; };
  auto a = pool.take(600).share(meter);
  auto b = pool.take(600).share(meter);
  auto c = pool.take(600).share(meter);
  CHECK(meter->bytes == 1800);
  a = {};
  CHECK(calls == 0);
  b = {};
  CHECK(calls == 1);
  c = {};
  CHECK(calls == 1);
  CHECK(meter->bytes == 0);
}
