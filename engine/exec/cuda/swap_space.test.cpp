// Host memory for the blocks of preempted sequences. Needs a GPU.
#include "engine/exec/cuda/swap_space.hpp"

#include "engine/exec/cuda/random_models.hpp"
#include "engine/exec/step_driver.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <chrono>
#include <thread>
#include <vector>

using namespace troupe;
using namespace troupe::engine;
using namespace troupe::engine::cuda;

namespace {

constexpr std::int64_t blocks = 24;
constexpr std::int64_t parts = 6;
/// No place begins with a slab.
constexpr std::int64_t part_bytes = 80'016;
constexpr std::uint32_t places = 200;
constexpr std::uint64_t place_bytes = parts * part_bytes;

/// A cache of blocks, each of which holds its number everywhere, and the places beside it.
class small_cache {
public:
  explicit small_cache(std::uint64_t most_locked_bytes)
      : cache_{must(device_buffer::make(parts * blocks * part_bytes, "cache"))},
        stream_{must(make_stream())}, saved_{must(swap_space::list::make(places))},
        restored_{must(swap_space::list::make(places))} {
    std::vector<std::uint32_t> numbers(parts * blocks * part_bytes / 4);
    for (std::size_t i = 0; i < numbers.size(); ++i)
      numbers[i] = static_cast<std::uint32_t>(i * 4 / part_bytes % blocks);
    REQUIRE(upload(cache_.data(), numbers.data(), cache_.size(), stream_.get()));
    space = must(swap_space::make({.places = places,
                                   .cache = cache_.data(),
                                   .blocks = blocks,
                                   .parts = parts,
                                   .part_bytes = part_bytes,
                                   .most_locked_bytes = most_locked_bytes},
                                  stream_.get()));
  }

  /// Saves a block to each of these places, and restores them into other blocks in one go.
  void move(const std::vector<std::uint32_t>& to) {
    std::vector<block_copy> out, in;
    for (std::uint32_t i = 0; i < to.size(); ++i) {
      out.push_back({block_id{i}, host_block{to[i]}});
      in.push_back({block_id{static_cast<std::uint32_t>(blocks) - 1 - i}, host_block{to[i]}});
    }
    saved_.assign(out);
    restored_.assign(in);
    REQUIRE(space->save(saved_, stream_.get()));
    REQUIRE(space->restore(restored_, stream_.get()));
    moved_ = std::max(moved_, to.size());
    std::vector<std::uint32_t> got(parts * blocks * part_bytes / 4);
    REQUIRE(download(got.data(), cache_.data(), cache_.size(), stream_.get()));
    REQUIRE(wait(stream_.get()));
    for (std::size_t i = 0; i < got.size(); ++i) {
      const auto block = static_cast<std::uint32_t>(i * 4 / part_bytes % blocks);
      const std::uint32_t mirrored = static_cast<std::uint32_t>(blocks) - 1 - block;
      if (got[i] != (mirrored < moved_ ? mirrored : block))
        FAIL("block " << block << " has " << got[i]);
    }
  }

  std::unique_ptr<swap_space> space;

private:
  template <class T>
  static T must(result<T> made) {
    CAPTURE(made ? "" : made.error().note);
    REQUIRE(made);
    return std::move(*made);
  }

  device_buffer cache_;
  stream stream_;
  swap_space::list saved_;
  swap_space::list restored_;
  std::size_t moved_ = 0;
};

} // namespace

TEST_CASE("places are page-locked from the first step on that copies to them") {
  REQUIRE(open_device(0));
  small_cache cache{std::uint64_t{1} << 40U};
  CHECK(cache.space->locked_bytes() == 0);
  cache.move({0, 40, 7});
  CHECK(cache.space->locked_bytes() >= 41 * place_bytes);
  cache.move({199, 120, 3, 1});
  CHECK(cache.space->locked_bytes() >= places * place_bytes);
}

TEST_CASE("a thread page-locks all places in the background") {
  REQUIRE(open_device(0));
  small_cache cache{std::uint64_t{1} << 40U};
  cache.space->begin();
  for (int i = 0; i < 500 && cache.space->locked_bytes() < places * place_bytes; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
  CHECK(cache.space->locked_bytes() >= places * place_bytes);
  cache.move({5, 34, 35, 36, 69, 70});
}

TEST_CASE("places that cannot be page-locked are copied to all the same") {
  REQUIRE(open_device(0));
  for (const std::uint64_t most : {std::uint64_t{0}, std::uint64_t{40} << 20U}) {
    CAPTURE(most);
    small_cache cache{most};
    cache.space->begin();
    // One lies on both sides of what is locked.
    const auto edge = static_cast<std::uint32_t>((std::uint64_t{32} << 20U) / place_bytes);
    cache.move({edge, 0, 199, edge + 1, 11});
    CHECK(cache.space->locked_bytes() == (most == 0 ? 0 : std::uint64_t{32} << 20U));
    cache.move({2, 3});
  }
}

TEST_CASE("a space that is not wanted any more ends while it page-locks") {
  REQUIRE(open_device(0));
  for (int i = 0; i < 3; ++i) {
    small_cache cache{std::uint64_t{1} << 40U};
    cache.space->begin();
  }
}

TEST_CASE("the CUDA executor offers the host places that it is given, once it is loaded") {
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
