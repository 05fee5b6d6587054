#include "actors/worker/succession.hpp"

#include <catch2/catch.hpp>

#include <atomic>
#include <thread>

using troupe::actors::succession;
using namespace std::chrono_literals;

TEST_CASE("an heir is made when the executor before it is gone") {
  succession line{20s};
  auto first = line.next(0);
  const auto other_rank = line.next(1);
  std::atomic<bool> made{false};
  std::thread heir{[&] {
    const auto second = line.next(0);
    made = true;
  }};
  std::this_thread::sleep_for(50ms);
  CHECK_FALSE(made);
  first.reset();
  heir.join();
  CHECK(made);
}

TEST_CASE("an executor that never ends holds its heir up for a while only") {
  succession line{30ms};
  const auto first = line.next(0);
  const auto begin = std::chrono::steady_clock::now();
  const auto second = line.next(0);
  CHECK(std::chrono::steady_clock::now() - begin >= 30ms);
  CHECK(second);
}
