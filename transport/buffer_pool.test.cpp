#include "transport/buffer_pool.hpp"

#include <catch2/catch.hpp>

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
  CHECK(pool.stats().bytes_out == 8192);
  part = {};
  CHECK(pool.stats().buffers_out == 0);
  CHECK(pool.stats().bytes_kept == 8192);
  // The next taker of the class gets the same memory.
  auto again = pool.take(8192);
  CHECK(again.bytes().data() == where);
  CHECK(pool.stats().bytes_kept == 0);
  // Another class does not.
  CHECK(pool.take(8193).bytes().data() != where);
}

TEST_CASE("buffers of every class are aligned", "[net][pool]") {
  buffer_pool pool;
  for (std::size_t size = 1; size <= std::size_t{128} << 20; size *= 4) {
    CAPTURE(size);
    const auto buffer = pool.take(size);
    CHECK(reinterpret_cast<std::uintptr_t>(buffer.bytes().data()) % pool_alignment == 0);
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
