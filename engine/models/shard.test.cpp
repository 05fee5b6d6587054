#include "engine/models/shard.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <vector>

using namespace troupe;
using namespace troupe::engine;

namespace {

/// A model that 1, 2, 4 and 8 ranks can share.
model_config divisible() {
  model_config config;
  config.hidden_size = 64;
  config.heads = 16;
  config.kv_heads = 8;
  config.head_dim = 16;
  config.intermediate_size = 160;
  config.vocab_size = 101;
  return config;
}

} // namespace

TEST_CASE("what does not divide is named, with the numbers of ranks that do") {
  for (const std::uint32_t ranks : {1U, 2U, 4U, 8U})
    CHECK(check_shards(divisible(), ranks));
  const auto refusal = [](auto change, std::uint32_t ranks) {
    model_config config = divisible();
    change(config);
    const auto checked = check_shards(config, ranks);
    REQUIRE_FALSE(checked);
    CHECK(checked.error().code == errc::unsupported);
    return checked.error().note;
  };
  const auto has = [](const std::string& note, std::string_view what) {
    CAPTURE(note);
    return note.find(what) != std::string::npos;
  };
  const auto as_is = [](model_config&) {};
  CHECK(has(refusal(as_is, 3), "tensor_parallel_size 3 does not divide the 8 segments"));
  CHECK(has(refusal(as_is, 16), "can have 1, 2, 4, 8"));
  CHECK(has(refusal(as_is, 0), "does not divide"));
  CHECK(has(refusal([](model_config& c) { c.heads = 12; }, 8), "12 attention heads"));
  CHECK(has(refusal([](model_config& c) { c.kv_heads = 2; }, 4),
            "2 KV heads; this model can have 1, 2"));
  CHECK(has(refusal([](model_config& c) { c.intermediate_size = 152; }, 2),
            "intermediate_size of 152"));
  CHECK(has(refusal([](model_config& c) { c.head_dim = 3, c.heads = 8; }, 2), "columns of 24"));
  CHECK(has(refusal([](model_config& c) { c.vocab_size = 3; }, 4), "3 tokens of vocabulary"));
  model_config odd = divisible();
  odd.intermediate_size = 56;
  CHECK(check_shards(odd, 1));
}

TEST_CASE("a rank's shape has its heads and its columns, and the whole vocabulary") {
  const model_config part = config_of_shard(divisible(), {.rank = 3, .ranks = 4});
  CHECK(part.heads == 4);
  CHECK(part.kv_heads == 2);
  CHECK(part.intermediate_size == 40);
  CHECK(part.vocab_size == 101);
  CHECK(part.hidden_size == 64);
}

TEST_CASE("the shards of a matrix are its parts in the order of ranks") {
  std::array<float, 6 * 8> values{};
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(i);
  const auto whole = kernels::matrix_view(values.data(), kernels::dtype::f32, 6, 8);
  const auto at = [](const kernels::tensor_view& view, std::int64_t row, std::int64_t col) {
    return static_cast<const float*>(view.data)[row * view.stride() + col];
  };
  for (const std::uint32_t ranks : {1U, 2U, 4U})
    for (const auto axis : {shard_axis::rows, shard_axis::cols}) {
      std::vector<float> seen;
      for (std::uint32_t rank = 0; rank < ranks; ++rank) {
        const auto part = view_of_shard(whole, axis, {rank, ranks});
        const std::int64_t first = axis == shard_axis::rows ? 6 * rank / ranks : 8 * rank / ranks;
        for (std::int64_t row = 0; row < part.shape[0]; ++row)
          for (std::int64_t col = 0; col < part.shape[1]; ++col) {
            const bool by_rows = axis == shard_axis::rows;
            CHECK(at(part, row, col) ==
                  at(whole, row + (by_rows ? first : 0), col + (by_rows ? 0 : first)));
            seen.push_back(at(part, row, col));
          }
      }
      CHECK(seen.size() == values.size());
    }
  CHECK(view_of_shard(whole, shard_axis::none, {1, 2}).data == whole.data);
  CHECK(range_of_shard(101, {.rank = 7, .ranks = 8}).end == 101);
}
