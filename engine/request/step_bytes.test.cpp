#include "engine/request/step_bytes.hpp"

#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

using namespace troupe;
using namespace troupe::engine;

namespace {

std::vector<block_copy> random_copies(splitmix64& random, std::size_t count) {
  std::vector<block_copy> copies(count);
  for (auto& copy : copies)
    copy = {block_id{static_cast<std::uint32_t>(random())},
            host_block{static_cast<std::uint32_t>(random())}};
  return copies;
}

step_batch random_step(splitmix64& random, std::size_t count) {
  step_batch step;
  step.saved = random_copies(random, random.below(count + 1));
  step.restored = random_copies(random, random.below(count + 1));
  step.rows.resize(count);
  for (auto& row : step.rows) {
    row.id = request_id{random()};
    row.position = static_cast<std::uint32_t>(random());
    row.tokens = static_cast<std::uint32_t>(random());
    row.samples = random.below(2) == 0;
    for (auto left = random.below(4); left > 0; --left)
      row.new_blocks.push_back(block_id{static_cast<std::uint32_t>(random())});
  }
  return step;
}

bool alike(const std::vector<block_copy>& a, const std::vector<block_copy>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.block == y.block && x.host == y.host;
  });
}

} // namespace

TEST_CASE("steps and tokens are what they were behind their bytes", "[step_bytes]") {
  splitmix64 random{5};
  for (const std::size_t count : {0U, 1U, 2U, 255U, 1000U}) {
    const auto step = random_step(random, count);
    step_batch got;
    got.rows.resize(3);
    REQUIRE(unpack_work(pack_work(step), got));
    CHECK(alike(got.saved, step.saved));
    CHECK(alike(got.restored, step.restored));
    REQUIRE(got.rows.size() == count);
    for (std::size_t i = 0; i < count; ++i) {
      CHECK(got.rows[i].id == step.rows[i].id);
      CHECK(got.rows[i].position == step.rows[i].position);
      CHECK(got.rows[i].tokens == step.rows[i].tokens);
      CHECK(got.rows[i].samples == step.rows[i].samples);
      CHECK(got.rows[i].new_blocks == step.rows[i].new_blocks);
    }
    std::vector<sampled_token> tokens(count);
    for (auto& one : tokens)
      one = {request_id{random()}, static_cast<token_id>(random())};
    const auto back = unpack_tokens(pack_tokens(tokens));
    REQUIRE((back && back->size() == count));
    for (std::size_t i = 0; i < count; ++i)
      CHECK(((*back)[i].id == tokens[i].id && (*back)[i].token == tokens[i].token));
  }
}

TEST_CASE("bytes that are no step are refused", "[step_bytes]") {
  splitmix64 random{6};
  auto step = random_step(random, 5);
  step.saved = random_copies(random, 3);
  step.restored = random_copies(random, 2);
  const auto good = pack_work(step);
  for (std::size_t cut = 0; cut < good.size(); ++cut) {
    step_batch got;
    const auto read = unpack_work(std::string_view{good}.substr(0, cut), got);
    CHECK((!read || got.rows.size() < 5));
    CHECK((read || read.error().code == errc::corrupt_data));
  }
  for (int i = 0; i < 2000; ++i) {
    auto bad = good;
    bad[i % 4 == 0 ? random.below(8) : random.below(bad.size())] = static_cast<char>(random());
    step_batch got;
    const auto read = unpack_work(bad, got);
    // However many are promised, there is never more than the bytes have.
    CHECK(got.saved.size() + got.restored.size() <= bad.size() / 8);
    CHECK(got.rows.size() <= bad.size() / 20);
    CHECK((read || read.error().code == errc::corrupt_data));
  }
  CHECK(!unpack_tokens("0123456789abc"));
}
