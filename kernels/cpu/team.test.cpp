#include "kernels/cpu/team.hpp"

#include <catch2/catch.hpp>

#include <chrono>
#include <vector>

using namespace troupe::kernels::cpu;

TEST_CASE("every member runs once, and run returns when all are done") {
  for (unsigned threads = 1; threads <= 5; ++threads) {
    team t{threads};
    CHECK(t.size() == threads);
    for (int round = 0; round < 50; ++round) {
      std::vector<int> seen(threads, 0);
      t.run([&](member& m) { ++seen[m.rank()]; });
      CHECK(seen == std::vector<int>(threads, 1));
    }
  }
}

TEST_CASE("writes before a sync are seen after it") {
  for (const std::uint32_t spin : {0U, 100U, 4000U}) {
    team t{3, {.spin = spin}};
    std::vector<int> value(3, 0);
    bool good = true;
    t.run([&](member& m) {
      for (int round = 1; round <= 300; ++round) {
        value[m.rank()] = round;
        m.sync();
        if (value[(m.rank() + 1) % 3] != round)
          good = false;
        m.sync();
      }
    });
    CHECK(good);
  }
}

TEST_CASE("shares are contiguous, cover all items and differ by at most one") {
  team t{4};
  for (std::int64_t items = 0; items < 20; ++items) {
    std::vector<share> shares(4);
    t.run([&](member& m) { shares[m.rank()] = m.split(items); });
    std::int64_t next = 0;
    for (const share& s : shares) {
      CHECK(s.begin == next);
      CHECK(s.end - s.begin >= items / 4);
      CHECK(s.end - s.begin <= items / 4 + 1);
      next = s.end;
    }
    CHECK(next == items);
  }
}

TEST_CASE("members have scratch of their own, aligned to a line") {
  team t{3};
  std::vector<std::span<std::byte>> all(3);
  t.run([&](member& m) {
    all[m.rank()] = m.scratch();
    for (std::byte& b : m.scratch())
      b = static_cast<std::byte>(m.rank() + 1);
  });
  for (unsigned rank = 0; rank < 3; ++rank) {
    CHECK(all[rank].size() == member::scratch_bytes);
    CHECK(reinterpret_cast<std::uintptr_t>(all[rank].data()) % 64 == 0);
    CHECK(all[rank].front() == static_cast<std::byte>(rank + 1));
    CHECK(all[rank].back() == static_cast<std::byte>(rank + 1));
  }
}

TEST_CASE("an idle team sleeps and wakes again") {
  team t{2, {.spin = 10}};
  for (int round = 0; round < 3; ++round) {
    int sum = 0;
    std::this_thread::sleep_for(std::chrono::milliseconds{5});
    t.run([&](member& m) {
      if (m.rank() == 1)
        sum = 42;
    });
    CHECK(sum == 42);
  }
}

TEST_CASE("the path can be forced") {
  team t{1, {.path = isa::scalar}};
  CHECK(t.path() == isa::scalar);
  CHECK(to_string(isa::avx512_bf16) == "avx512_bf16");
  CHECK(supported(best_isa()));
}
