#include "engine/exec/machine.hpp"

#include <catch2/catch.hpp>

#include <thread>

using namespace troupe::engine;

namespace {

using cores = std::vector<unsigned>;

/// Runs it in a thread of its own, whose cores are nobody else's business.
template <class F>
void apart(F&& run) {
  std::thread{std::forward<F>(run)}.join();
}

} // namespace

TEST_CASE("a list of cores is read as Linux writes it") {
  CHECK(cores_in("0") == cores{0});
  CHECK(cores_in("0-3,8\n") == cores{0, 1, 2, 3, 8});
  CHECK(cores_in("2,4-5,7-7") == cores{2, 4, 5, 7});
  for (const char* wrong : {"", "\n", "a", "0-", "3-1", "1,,2", "1;2", "-1", "0-100000", "1,"})
    CHECK(cores_in(wrong).empty());
}

TEST_CASE("a thread and those that it starts stay on the cores that it is told and may use") {
  const unsigned before = usable_cores();
  apart([&] {
    CHECK(stay_on(cores{}) == 0);
    CHECK(stay_on(cores{1023}) == 0);
    CHECK(usable_cores() == before);
    cores all(1024);
    for (unsigned i = 0; i < all.size(); ++i)
      all[i] = i;
    CHECK(stay_on(all) == before);
    unsigned one = 0;
    while (stay_on(cores{one}) == 0)
      ++one;
    CHECK(usable_cores() == 1);
    apart([] { CHECK(usable_cores() == 1); });
    // Nothing leads back.
    CHECK(stay_on(all) == 1);
  });
  CHECK(usable_cores() == before);
}
