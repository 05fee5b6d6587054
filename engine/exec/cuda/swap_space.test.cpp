// Host memory for the blocks of preempted sequences. Needs a GPU.
#include "engine/exec/cuda/swap_space.hpp"

#include "engine/exec/cuda/random_models.hpp"
#include "engine/exec/step_driver.hpp"
#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

using namespace troupe;
using namespace troupe::engine;
using namespace troupe::engine::cuda;

namespace {

/// No place of it is whole pages.
constexpr swap_space::options odd{.places = 200, .blocks = 24, .parts = 6, .part_bytes = 80'016};

/// `count` different numbers below `limit`, in no order.
std::vector<std::uint32_t> some_of(splitmix64& random, std::size_t limit, std::size_t count) {
  std::vector<std::uint32_t> all(limit);
  std::iota(all.begin(), all.end(), 0U);
  for (std::size_t i = 0; i < count; ++i)
    std::swap(all[i], all[i + random.below(all.size() - i)]);
  all.resize(count);
  return all;
}

/// A cache of random numbers and what it should hold, and the places beside it.
class small_cache {
public:
  explicit small_cache(const swap_space::options& of)
      : of_{of}, cache_{must(device_buffer::make(
                     static_cast<std::size_t>(of.parts * of.blocks * of.part_bytes), "cache"))},
        stream_{must(make_stream())}, held_(cache_.size()), kept_(of.places) {
    for (std::uint8_t& x : held_)
      x = static_cast<std::uint8_t>(random_());
    REQUIRE(upload(cache_.data(), held_.data(), held_.size(), stream_.get()));
    of_.cache = cache_.data();
    space = must(swap_space::make(of_));
  }

  /// Saves random blocks to these places, and gives them other contents behind that.
  void save(const std::vector<std::uint32_t>& to) {
    const auto from = some_of(random_, static_cast<std::size_t>(of_.blocks), to.size());
    std::vector<block_copy> copies;
    for (std::size_t i = 0; i < to.size(); ++i) {
      copies.push_back({block_id{from[i]}, host_block{to[i]}});
      kept_[to[i]] = contents(from[i]);
    }
    REQUIRE(space->save(copies, stream_.get()));
    REQUIRE(space->join(stream_.get()));
    for (const std::uint32_t block : from)
      overwrite(block);
  }
  /// Restores these places into random blocks.
  void restore(const std::vector<std::uint32_t>& places) {
    // Nothing in work may touch the blocks.
    REQUIRE(wait(stream_.get()));
    const auto to = some_of(random_, static_cast<std::size_t>(of_.blocks), places.size());
    std::vector<block_copy> copies;
    for (std::size_t i = 0; i < places.size(); ++i) {
      copies.push_back({block_id{to[i]}, host_block{places[i]}});
      each_part(to[i], [&](std::size_t at, std::size_t part, std::size_t size) {
        std::copy_n(kept_[places[i]].begin() + static_cast<std::ptrdiff_t>(part * size), size,
                    held_.begin() + static_cast<std::ptrdiff_t>(at));
      });
    }
    REQUIRE(space->restore(copies, stream_.get()));
  }
  void move(const std::vector<std::uint32_t>& places) {
    save(places);
    restore(places);
  }
  /// Whether the cache holds what it should.
  [[nodiscard]] bool right() {
    std::vector<std::uint8_t> got(held_.size());
    REQUIRE(download(got.data(), cache_.data(), got.size(), stream_.get()));
    REQUIRE(wait(stream_.get()));
    return got == held_;
  }
  [[nodiscard]] std::vector<std::uint32_t> some_places(std::size_t count) {
    return some_of(random_, of_.places, count);
  }
  [[nodiscard]] std::uint64_t bytes_of(std::uint32_t places) const {
    return places * static_cast<std::uint64_t>(of_.parts * of_.part_bytes);
  }

  std::unique_ptr<swap_space> space;

private:
  template <class T>
  static T must(result<T> made) {
    CAPTURE(made ? "" : made.error().note);
    REQUIRE(made);
    return std::move(*made);
  }

  template <class F>
  void each_part(std::uint32_t block, F f) const {
    const auto size = static_cast<std::size_t>(of_.part_bytes);
    for (std::size_t part = 0; part < static_cast<std::size_t>(of_.parts); ++part)
      f((part * static_cast<std::size_t>(of_.blocks) + block) * size, part, size);
  }
  [[nodiscard]] std::vector<std::uint8_t> contents(std::uint32_t block) const {
    std::vector<std::uint8_t> all;
    each_part(block, [&](std::size_t at, std::size_t, std::size_t size) {
      const auto from = held_.begin() + static_cast<std::ptrdiff_t>(at);
      all.insert(all.end(), from, from + static_cast<std::ptrdiff_t>(size));
    });
    return all;
  }
  void overwrite(std::uint32_t block) {
    each_part(block, [&](std::size_t at, std::size_t, std::size_t size) {
      for (std::size_t i = 0; i < size; ++i)
        held_[at + i] = static_cast<std::uint8_t>(random_());
      REQUIRE(upload(cache_.as<std::byte>() + at, held_.data() + at, size, stream_.get()));
    });
  }

  swap_space::options of_;
  splitmix64 random_{21};
  device_buffer cache_;
  stream stream_;
  std::vector<std::uint8_t> held_;
  std::vector<std::vector<std::uint8_t>> kept_;
};

} // namespace

TEST_CASE("blocks of all layers go to host memory and back, and nothing else changes", "[swap]") {
  REQUIRE(open_device(0));
  const auto of = [](std::int64_t blocks, std::int64_t parts, std::int64_t part_bytes,
                     std::uint32_t places, std::int64_t most_pitch) {
    return swap_space::options{.places = places,
                               .blocks = blocks,
                               .parts = parts,
                               .part_bytes = part_bytes,
                               .most_pitch = most_pitch};
  };
  // The last one's rows are too far apart for the copy engines, as those of a huge cache are.
  for (const auto& shape : {of(1, 2, 512, 1, 1 << 30), of(7, 4, 768, 5, 1 << 30),
                            of(20, 64, 32'768, 18, 1 << 30), of(9, 4, 19'200, 12, 1000)}) {
    CAPTURE(shape.blocks, shape.parts, shape.part_bytes, shape.places);
    small_cache cache{shape};
    const auto most = std::min<std::size_t>(static_cast<std::size_t>(shape.blocks), shape.places);
    const auto places = cache.some_places(most);
    cache.save(places);
    CHECK(cache.right());
    cache.restore({places.begin(), places.begin() + static_cast<std::ptrdiff_t>((most + 1) / 2)});
    CHECK(cache.right());
    for (int i = 0; i < 5; ++i)
      cache.move(cache.some_places((most + 1) / 2));
    CHECK(cache.right());
  }
}

TEST_CASE("places are page-locked from the first step on that copies to them", "[swap]") {
  REQUIRE(open_device(0));
  small_cache cache{odd};
  CHECK(cache.space->locked_bytes() == 0);
  cache.move({0, 40, 7});
  CHECK(cache.space->locked_bytes() >= cache.bytes_of(41));
  cache.move({199, 120, 3, 1});
  CHECK(cache.space->locked_bytes() >= cache.bytes_of(200));
  CHECK(cache.right());
}

TEST_CASE("a thread page-locks all places in the background", "[swap]") {
  REQUIRE(open_device(0));
  small_cache cache{odd};
  cache.space->begin();
  for (int i = 0; i < 500 && cache.space->locked_bytes() < cache.bytes_of(200); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
  CHECK(cache.space->locked_bytes() >= cache.bytes_of(200));
  cache.move({5, 34, 35, 36, 69, 70});
  CHECK(cache.right());
}

TEST_CASE("places that cannot be page-locked are copied to all the same", "[swap]") {
  REQUIRE(open_device(0));
  for (const std::uint64_t most : {std::uint64_t{0}, std::uint64_t{40} << 20U}) {
    CAPTURE(most);
    auto of = odd;
    of.most_locked_bytes = most;
    small_cache cache{of};
    cache.space->begin();
    cache.move({199, 0, 11});
    const std::uint64_t locked = cache.space->locked_bytes();
    CHECK(locked <= most);
    CHECK((locked > 0) == (most > 0));
    // On both sides of what is locked, and of every slab.
    for (std::uint32_t first = 0; first < 200; first += 20) {
      std::vector<std::uint32_t> places(20);
      std::iota(places.begin(), places.end(), first);
      cache.move(places);
    }
    CHECK(cache.space->locked_bytes() == locked);
    CHECK(cache.right());
  }
}

TEST_CASE("a space that is not wanted any more ends while it page-locks", "[swap]") {
  REQUIRE(open_device(0));
  for (int i = 0; i < 3; ++i) {
    small_cache cache{odd};
    cache.space->begin();
  }
}

TEST_CASE("the CUDA executor offers the host places that it is given, once it is loaded",
          "[swap]") {
  const test::temporary_folder folder;
  folder.write("config.json", test::wide_model);
  executor_options options = test::random_options(folder, "bfloat16");
  options.swap_bytes = 0;
  CHECK(test::load_cuda(options)->describe().num_host_blocks == 0);
  options.swap_bytes = (std::uint64_t{100} << 20U) + 1;
  const auto run = test::load_cuda(options);
  const auto& described = run->describe();
  CHECK(described.num_host_blocks == options.swap_bytes / described.kv_bytes_per_block);
  CHECK(test::make_cuda(options)->foresee(0)->num_blocks == described.num_blocks);
  // The last place is far from locked yet.
  test::step_driver drive{*run};
  drive.save(block_id{1}, host_block{described.num_host_blocks - 1});
  CHECK(drive.run());
  drive.restore(block_id{0}, host_block{described.num_host_blocks - 1});
  CHECK(drive.run());
}
