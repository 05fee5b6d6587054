#include "engine/request/step_bytes.hpp"

#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::engine;

namespace {

std::vector<step_row> random_rows(splitmix64& random, std::size_t count) {
  std::vector<step_row> rows(count);
  for (auto& row : rows) {
    row.id = request_id{random()};
    row.position = static_cast<std::uint32_t>(random());
    row.tokens = static_cast<std::uint32_t>(random());
    row.samples = random.below(2) == 0;
    for (auto left = random.below(4); left > 0; --left)
      row.new_blocks.push_back(block_id{static_cast<std::uint32_t>(random())});
  }
  return rows;
}

} // namespace

TEST_CASE("rows and tokens are what they were behind their bytes", "[step_bytes]") {
  splitmix64 random{5};
  for (const std::size_t count : {0U, 1U, 2U, 255U, 1000U}) {
    const auto rows = random_rows(random, count);
    const auto got = unpack_rows(pack_rows(rows));
    REQUIRE(got);
    REQUIRE(got->size() == count);
    for (std::size_t i = 0; i < count; ++i) {
      CHECK((*got)[i].id == rows[i].id);
      CHECK((*got)[i].position == rows[i].position);
      CHECK((*got)[i].tokens == rows[i].tokens);
      CHECK((*got)[i].samples == rows[i].samples);
      CHECK((*got)[i].new_blocks == rows[i].new_blocks);
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

TEST_CASE("bytes that are no rows are refused", "[step_bytes]") {
  splitmix64 random{6};
  const auto good = pack_rows(random_rows(random, 5));
  for (std::size_t cut = 0; cut < good.size(); ++cut) {
    const auto got = unpack_rows(std::string_view{good}.substr(0, cut));
    CHECK((!got || got->size() < 5));
  }
  for (int i = 0; i < 2000; ++i) {
    auto bad = good;
    bad[random.below(bad.size())] = static_cast<char>(random());
    const auto got = unpack_rows(bad);
    CHECK((!got || got->size() <= bad.size() / 20));
    CHECK((got || got.error().code == errc::corrupt_data));
  }
  CHECK(!unpack_tokens("0123456789abc"));
}
