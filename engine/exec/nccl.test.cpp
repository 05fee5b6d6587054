// The ranks of GPUs over an NCCL of threads (test_nccl.cpp): how they meet, add, and end.
#include "engine/exec/nccl.hpp"

#include <catch2/catch.hpp>

#include <dlfcn.h>
#include <unistd.h>

#include <string_view>
#include <thread>
#include <vector>

using namespace troupe;
using namespace troupe::engine;
using namespace std::chrono_literals;

namespace {

/// Makes it the calling thread's, as test_nccl.cpp sees it.
void use_device(int device) {
  void* const library = dlopen(TROUPE_TEST_NCCL, RTLD_NOW | RTLD_LOCAL);
  reinterpret_cast<void (*)(int)>(dlsym(library, "test_nccl_use_device"))(device);
}

nccl_place place_of(const std::shared_ptr<collective>& end, unsigned char device) {
  nccl_place place;
  place.library = TROUPE_TEST_NCCL;
  place.group = end;
  place.device.fill(device);
  place.enter = [device]() -> result<void> {
    use_device(device);
    return {};
  };
  return place;
}

/// Calls `run` for each rank in a thread of its own.
template <class Run>
void on_ranks(std::uint32_t ranks, const Run& run) {
  const auto group = make_local_group(ranks);
  std::vector<std::thread> threads;
  for (std::uint32_t rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] { run(rank, group[rank]); });
  for (std::thread& one : threads)
    one.join();
}

bool in_environment(std::string_view entry) {
  for (char** one = environ; *one != nullptr; ++one)
    if (*one == entry)
      return true;
  return false;
}

bool says(const error& e, std::string_view what) { return e.note.find(what) != std::string::npos; }

} // namespace

TEST_CASE("ranks meet over NCCL, add and gather") {
  std::vector<std::vector<float>> sums(4), gathered(4);
  std::vector<std::string> notes(4);
  on_ranks(4, [&](std::uint32_t rank, const auto& end) {
    auto made = nccl_communicator::make(place_of(end, static_cast<unsigned char>(rank)));
    if (!made) {
      notes[rank] = made.error().note;
      return;
    }
    const auto own = static_cast<float>(rank);
    sums[rank] = {own, 10 * own};
    gathered[rank].assign(8, -1);
    gathered[rank][2 * rank] = own;
    gathered[rank][2 * rank + 1] = own + 0.5F;
    for (const auto& done : {made->sum(sums[rank].data(), 2, nccl_type::f32, nullptr),
                             made->gather(gathered[rank].data(), 2, nccl_type::f32, nullptr)})
      if (!done)
        notes[rank] += done.error().note;
  });
  for (std::size_t rank = 0; rank < 4; ++rank) {
    CHECK(notes[rank] == "");
    CHECK(sums[rank] == std::vector<float>{6, 60});
    CHECK(gathered[rank] == std::vector<float>{0, 0.5F, 1, 1.5F, 2, 2.5F, 3, 3.5F});
  }
  // NCCL reads it when it is first used.
  CHECK(in_environment("NCCL_NVLS_ENABLE=0"));
}

TEST_CASE("a missing NCCL, one that is none, and one GPU for two ranks are sentences") {
  const auto group = make_local_group(2);
  auto place = place_of(group[0], 0);
  place.library = "/nowhere/libnccl.so.2";
  const auto absent = nccl_communicator::make(place);
  REQUIRE_FALSE(absent);
  CHECK(absent.error().code == errc::not_found);
  CHECK(says(absent.error(), "/nowhere/libnccl.so.2 cannot be opened"));
  CHECK(says(absent.error(), "LD_LIBRARY_PATH"));
  CHECK(nccl_communicator::find(place.library).error() == absent.error());
  place.library = TROUPE_TEST_NO_NCCL;
  const auto other = nccl_communicator::make(place);
  REQUIRE_FALSE(other);
  CHECK(other.error().code == errc::unsupported);
  CHECK(says(other.error(), "has no ncclGetVersion, "));
  CHECK(nccl_communicator::find(place.library).error() == other.error());
  CHECK(nccl_communicator::find(TROUPE_TEST_NCCL));
  std::vector<std::optional<error>> said(2);
  on_ranks(2, [&](std::uint32_t rank, const auto& end) {
    if (auto made = nccl_communicator::make(place_of(end, 7)); !made)
      said[rank] = made.error();
  });
  for (const auto& one : said) {
    REQUIRE(one);
    CHECK(one->code == errc::conflict);
    CHECK(says(*one, "rank 0 and rank 1 are given the same GPU"));
  }
}

TEST_CASE("ranks on one GPU are left to an NCCL that takes them for machines of their own") {
  std::vector<std::string> notes(2);
  on_ranks(2, [&](std::uint32_t rank, const auto& end) {
    auto place = place_of(end, 7);
    place.enter = [rank]() -> result<void> {
      use_device(static_cast<int>(rank));
      return {};
    };
    if (auto made = nccl_communicator::make(place); !made)
      notes[rank] = made.error().note;
  });
  CHECK(notes == std::vector<std::string>(2));
}

TEST_CASE("a rank that never connects ends the others' waiting, by the limit or the group's end") {
  for (const bool dies : {false, true}) {
    std::optional<error> said;
    const auto begin = std::chrono::steady_clock::now();
    on_ranks(2, [&](std::uint32_t rank, const auto& end) {
      auto place = place_of(end, static_cast<unsigned char>(rank));
      place.limit = dies && rank == 0 ? 60s : 100ms;
      if (rank == 1)
        // It introduces itself, and then its device is lost.
        place.enter = [&]() -> result<void> {
          if (dies)
            end->abort({errc::peer_down, "rank 1 stopped"});
          return fail(errc::internal, "the GPU has fallen off the bus");
        };
      auto made = nccl_communicator::make(place);
      if (rank == 0 && !made)
        said = made.error();
    });
    CHECK(std::chrono::steady_clock::now() - begin < 10s);
    REQUIRE(said);
    CHECK(says(*said, dies ? "rank 1 stopped" : "within 0.1 s"));
  }
  // The connecting that was left behind ends by itself.
  std::this_thread::sleep_for(2500ms);
}

TEST_CASE("an aborted communicator refuses, and the others see its end") {
  std::optional<error> seen;
  std::optional<error> refused;
  on_ranks(2, [&](std::uint32_t rank, const auto& end) {
    auto made = nccl_communicator::make(place_of(end, static_cast<unsigned char>(rank)));
    if (!made)
      return;
    float x = 1;
    if (rank == 1) {
      made->abort();
      if (auto done = made->sum(&x, 1, nccl_type::f32, nullptr); !done)
        refused = done.error();
      return;
    }
    for (int i = 0; i < 1000 && !seen; ++i) {
      std::this_thread::sleep_for(1ms);
      seen = made->failure();
    }
  });
  REQUIRE(seen);
  CHECK(seen->code == errc::peer_down);
  REQUIRE(refused);
  CHECK(refused->code == errc::peer_down);
}
