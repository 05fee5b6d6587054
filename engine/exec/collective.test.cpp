#include "engine/exec/collective.hpp"

#include "engine/exec/executor.hpp"
#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <atomic>
#include <cstring>
#include <thread>

using namespace troupe;
using namespace troupe::engine;
using namespace std::chrono_literals;

namespace {

using clock_type = std::chrono::steady_clock;

/// Runs `work(rank)` in a thread for each rank and waits for all.
template <class Work>
void on_ranks(std::uint32_t ranks, Work work) {
  std::vector<std::thread> threads;
  for (std::uint32_t rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&work, rank] { work(rank); });
  for (std::thread& one : threads)
    one.join();
}

/// What rank `rank` gives in exchange `number` of the test: all ranks know what to expect.
std::vector<std::byte> gift(std::uint32_t rank, std::uint64_t number, std::size_t size) {
  splitmix64 random{number * 64 + rank};
  std::vector<std::byte> bytes(size);
  for (std::byte& one : bytes)
    one = static_cast<std::byte>(random());
  return bytes;
}

bool says(const error& e, std::string_view what) { return e.note.find(what) != std::string::npos; }

/// One exchange of a single byte.
result<void> exchange_byte(collective& end, std::chrono::milliseconds limit, std::uint64_t tag = 0,
                           std::size_t size = 1) {
  const std::vector<std::byte> mine(size);
  std::vector<std::byte> all(size * end.ranks());
  return end.all_gather({.mine = mine, .all = all, .tag = tag, .limit = limit});
}

/// A channel that ends nowhere: a rank whose peers are told by hand.
class silent_channel final : public rank_channel {
public:
  explicit silent_channel(std::vector<error>& aborts) : aborts_{&aborts} {}
  void send(const exchange_frame&) override {}
  void abort(const error& why) override { aborts_->push_back(why); }

private:
  std::vector<error>* aborts_;
};

exchange_frame frame_of(std::uint32_t from, std::uint64_t number) {
  auto bytes = std::make_shared<std::vector<std::byte>>(1);
  return {.from = from, .number = number, .tag = 0, .given = {bytes, *bytes}};
}

} // namespace

TEST_CASE("every rank has what each rank gave, in the order of ranks") {
  for (const std::uint32_t ranks : {1U, 2U, 4U, 8U}) {
    const auto group = make_local_group(ranks);
    std::atomic<int> wrong = 0;
    on_ranks(ranks, [&](std::uint32_t rank) {
      for (std::uint64_t number = 1; number <= 200; ++number) {
        const std::size_t size = splitmix64{number}() % 3000;
        const auto mine = gift(rank, number, size);
        std::vector<std::byte> all(size * ranks);
        const auto done =
            group[rank]->all_gather({.mine = mine, .all = all, .tag = number, .limit = 20s});
        bool good = done.has_value();
        for (std::uint32_t from = 0; good && from < ranks; ++from) {
          const auto given = gift(from, number, size);
          good = std::equal(given.begin(), given.end(), all.begin() + from * size);
        }
        wrong += good ? 0 : 1;
      }
    });
    CHECK(wrong == 0);
  }
}

TEST_CASE("a rank may give what lies at its own place already") {
  const auto group = make_local_group(2);
  on_ranks(2, [&](std::uint32_t rank) {
    std::vector<std::byte> all(20);
    const auto mine = std::span{all}.subspan(rank * 10, 10);
    std::memset(mine.data(), static_cast<int>(rank) + 1, mine.size());
    const auto done = group[rank]->all_gather({.mine = mine, .all = all});
    const bool good = done && all.front() == std::byte{1} && all.back() == std::byte{2};
    if (!good)
      group[rank]->abort({errc::internal, "wrong bytes"});
  });
  CHECK_FALSE(group[0]->failure());
}

TEST_CASE("a rank that does not come ends the exchange at its limit, for good") {
  const auto group = make_local_group(3);
  std::vector<std::optional<error>> ends(3);
  const auto begin = clock_type::now();
  on_ranks(3, [&](std::uint32_t rank) {
    if (rank == 1)
      return;
    const auto done = exchange_byte(*group[rank], 50ms);
    if (!done)
      ends[rank] = done.error();
  });
  CHECK(clock_type::now() - begin < 10s);
  for (const std::uint32_t rank : {0U, 2U}) {
    REQUIRE(ends[rank]);
    CHECK(ends[rank]->code == errc::timed_out);
    CHECK(says(*ends[rank], "waited 50 ms for rank 1"));
  }
  const auto later = exchange_byte(*group[1], 20s);
  REQUIRE_FALSE(later);
  CHECK(later.error().code == errc::timed_out);
}

TEST_CASE("an abort ends the exchanges that wait, at once, with its reason") {
  const auto group = make_local_group(4);
  std::vector<std::optional<error>> ends(4);
  const auto begin = clock_type::now();
  on_ranks(4, [&](std::uint32_t rank) {
    if (rank == 3) {
      std::this_thread::sleep_for(30ms);
      return group[rank]->abort({errc::out_of_memory, "rank 3 has no memory"});
    }
    const auto done = exchange_byte(*group[rank], 60s);
    if (!done)
      ends[rank] = done.error();
  });
  CHECK(clock_type::now() - begin < 10s);
  for (std::uint32_t rank = 0; rank < 3; ++rank) {
    REQUIRE(ends[rank]);
    CHECK(*ends[rank] == error{errc::out_of_memory, "rank 3 has no memory"});
    CHECK(group[rank]->failure() == *ends[rank]);
  }
  group[0]->abort({errc::internal, "a second reason"});
  CHECK(group[0]->failure()->code == errc::out_of_memory);
}

TEST_CASE("ranks that are at different steps or of different shapes are told apart") {
  const auto tags = make_local_group(2);
  const auto sizes = make_local_group(2);
  on_ranks(2, [&](std::uint32_t rank) {
    static_cast<void>(exchange_byte(*tags[rank], 20s, 7 + rank));
    static_cast<void>(exchange_byte(*sizes[rank], 20s, 0, 1 + rank));
  });
  REQUIRE(tags[0]->failure());
  CHECK(tags[0]->failure()->code == errc::conflict);
  CHECK(says(*tags[0]->failure(), "at step 7"));
  CHECK(says(*tags[0]->failure(), "at step 8"));
  REQUIRE(sizes[1]->failure());
  CHECK(sizes[1]->failure()->code == errc::bad_shape);
}

TEST_CASE("frames that cannot be right fail the group and nothing else") {
  const auto with_frames = [](std::vector<exchange_frame> frames) {
    std::vector<error> aborts;
    rank_end member{0, {"rank 0", "rank 1 (node b)"}, std::make_unique<silent_channel>(aborts)};
    for (exchange_frame& frame : frames)
      member.deliver(std::move(frame));
    const auto failure = member.failure();
    CHECK(aborts.size() == (failure ? 1 : 0));
    return failure ? failure->code : errc::none;
  };
  CHECK(with_frames({frame_of(1, 1)}) == errc::none);
  CHECK(with_frames({frame_of(0, 1)}) == errc::corrupt_data);
  CHECK(with_frames({frame_of(2, 1)}) == errc::corrupt_data);
  CHECK(with_frames({frame_of(1, 0)}) == errc::corrupt_data);
  CHECK(with_frames({frame_of(1, 2)}) == errc::corrupt_data);
  CHECK(with_frames({frame_of(1, 1), frame_of(1, 1)}) == errc::corrupt_data);
}

TEST_CASE("a rank is named once in the reason that it gives") {
  const auto given = [](std::string note) {
    const auto group = make_local_group(2);
    group[1]->abort_for_me({errc::internal, std::move(note)});
    return group[0]->failure()->note;
  };
  CHECK(given("out of paper") == "rank 1: out of paper");
  CHECK(given("rank 1 waited") == "rank 1 waited");
}

TEST_CASE("a member that is told of a loss fails without telling the others") {
  std::vector<error> aborts;
  rank_end member{0, {"rank 0", "rank 1 (node b)"}, std::make_unique<silent_channel>(aborts)};
  CHECK(member.name_of(1) == "rank 1 (node b)");
  member.lose({errc::peer_down, "rank 1 (node b) is gone"});
  CHECK(exchange_byte(member, 20s).error().code == errc::peer_down);
  CHECK(aborts.empty());
}

TEST_CASE("an executor is not made without the group that its rank needs") {
  executor_options options;
  options.ranks = 2;
  const auto none = make_executor("simulated", options);
  REQUIRE_FALSE(none);
  CHECK(none.error().code == errc::invalid_argument);
  CHECK(says(none.error(), "rank 0 of 2 has no group"));
  options.group = make_local_group(2)[1];
  const auto other = make_executor("simulated", options);
  REQUIRE_FALSE(other);
  CHECK(says(other.error(), "place of rank 1 of 2"));
}
