// How the inputs of a step are laid out for the device. Needs a GPU.
#include "engine/exec/cuda/step_inputs.hpp"

#include <catch2/catch.hpp>

#include <vector>

using namespace troupe;
using namespace troupe::engine;
using namespace troupe::engine::cuda;

TEST_CASE("items of prompts that see most come first") {
  constexpr std::int32_t tile_rows = kernels::cuda::wide_tile_rows;
  constexpr std::int32_t group = 4;
  const input_limits limits{.rows = 1024,
                            .sequences = 4,
                            .table_entries = 256,
                            .group = group,
                            .kv_heads = 2,
                            .dim = 128,
                            .prefill_rows = tile_rows};
  auto inputs = host_inputs::make(limits);
  auto device = device_inputs::make(limits);
  REQUIRE(inputs);
  REQUIRE(device);
  // The second is a decode, and has no such items.
  const std::vector<kernels::cuda::sequence_rows> sequences{
      {0, 100, 0, 0}, {100, 1, 90, 0}, {101, 33, 300, 0}, {134, 70, 30, 0}};
  for (const auto& rows : sequences) {
    inputs->add(rows, std::vector<block_id>(
                          static_cast<std::size_t>(rows.first_position + rows.rows) / 16 + 1));
    for (std::int32_t i = 0; i < rows.rows; ++i)
      inputs->add_row({.position = rows.first_position + i});
  }
  inputs->order_prompts();
  REQUIRE(device->send(*inputs, nullptr));
  std::vector<kernels::cuda::attention_item> items(inputs->prefill_items());
  REQUIRE(items.size() == 4 + 2 + 3);
  REQUIRE(download(items.data(), device->batch_of(*inputs).attention.prefill,
                   items.size() * sizeof(items[0]), nullptr));
  REQUIRE(wait(stream_ref{nullptr}));
  // Their last rows see up to 332, 331, 99, 99, 95, 93, 63, 61 and 31.
  const std::vector<std::pair<std::int32_t, std::int32_t>> order{
      {2, 1}, {2, 0}, {0, 3}, {3, 2}, {0, 2}, {3, 1}, {0, 1}, {3, 0}, {0, 0}};
  for (std::size_t i = 0; i < items.size(); ++i) {
    CAPTURE(i);
    CHECK(items[i].sequence == order[i].first);
    CHECK(items[i].tile_begin == order[i].second * tile_rows);
  }
}
