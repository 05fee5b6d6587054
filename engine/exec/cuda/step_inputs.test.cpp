// How the inputs of a step are laid out for the device. Needs a GPU.
#include "engine/exec/cuda/step_inputs.hpp"

#include <catch2/catch.hpp>

#include <vector>

using namespace troupe;
using namespace troupe::engine;
using namespace troupe::engine::cuda;

namespace {

constexpr input_limits of_decodes{
    .rows = 64, .sequences = 64, .table_entries = 4096, .group = 4, .kv_heads = 8, .dim = 128};

/// The inputs of a step here and on the device.
struct both_inputs {
  result<host_inputs> here;
  result<device_inputs> there;

  explicit both_inputs(const input_limits& limits)
      : here{host_inputs::make(limits)}, there{device_inputs::make(limits)} {
    REQUIRE(here);
    REQUIRE(there);
  }
};

using kernels::cuda::attention_item;

/// A step of decodes, each at the end of so many positions.
void deal_decodes(host_inputs& inputs, const std::vector<std::int32_t>& lengths, bool sample) {
  inputs.clear();
  for (const std::int32_t length : lengths) {
    inputs.add({static_cast<std::int32_t>(inputs.rows()), 1, length - 1, 0},
               std::vector<block_id>(static_cast<std::size_t>(length + 15) / 16));
    inputs.add_row({.position = length - 1});
    if (sample)
      inputs.pick({});
  }
  inputs.deal_decodes();
}

std::vector<attention_item> items_at(const attention_item* from, std::int64_t count) {
  std::vector<attention_item> items(static_cast<std::size_t>(count));
  REQUIRE(download(items.data(), from, items.size() * sizeof(items[0]), nullptr));
  REQUIRE(wait(stream_ref{nullptr}));
  return items;
}

} // namespace

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
  both_inputs made{limits};
  auto& [inputs, device] = made;
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
  CHECK(device->batch_of(*inputs).decodes_begin == 100);
  CHECK(device->batch_of(*inputs).decodes_end == 101);
  REQUIRE(inputs->prefill_items() == 4 + 2 + 3);
  const auto items = items_at(device->batch_of(*inputs).attention.prefill, inputs->prefill_items());
  // Their last rows see up to 332, 331, 99, 99, 95, 93, 63, 61 and 31.
  const std::vector<std::pair<std::int32_t, std::int32_t>> order{
      {2, 1}, {2, 0}, {0, 3}, {3, 2}, {0, 2}, {3, 1}, {0, 1}, {3, 0}, {0, 0}};
  for (std::size_t i = 0; i < items.size(); ++i) {
    CAPTURE(i);
    CHECK(items[i].of.row_begin == sequences[static_cast<std::size_t>(order[i].first)].row_begin);
    CHECK(items[i].tile_begin == order[i].second * tile_rows);
  }
}

TEST_CASE("decodes are walked whole unless one is much of the step") {
  both_inputs made{of_decodes};
  auto& [inputs, device] = made;
  const auto deal = [&](const std::vector<std::int32_t>& lengths) {
    deal_decodes(*inputs, lengths, false);
    REQUIRE(device->send(*inputs, nullptr));
    const auto attention = device->batch_of(*inputs).attention;
    return items_at(attention.decode, attention.decode_items_max);
  };
  // An SM's share is 1,945 positions; the longest come first.
  std::vector<std::int32_t> many(32, 1000);
  many[5] = 1100;
  many[7] = 1000 - 1;
  auto items = deal(many);
  CHECK(inputs->joins() == 0);
  REQUIRE(items.size() == 32);
  CHECK(items.front().of.row_begin == 5);
  CHECK(items[1].of.row_begin == 0);
  CHECK(items.back().of.row_begin == 7);
  for (const auto& item : items)
    CHECK(item.split == -1);
  // One long sequence is split, and the short ones behind it are not.
  items = deal({200, 3000, 256});
  CHECK(inputs->joins() == 1);
  REQUIRE(items.size() == 14);
  for (std::int32_t i = 0; i < 12; ++i) {
    CHECK(items[static_cast<std::size_t>(i)].of.row_begin == 1);
    CHECK(items[static_cast<std::size_t>(i)].split == i);
    CHECK(items[static_cast<std::size_t>(i)].partial == i);
  }
  CHECK(items[12].of.row_begin == 2);
  CHECK(items[12].split == -1);
  CHECK(items[13].of.row_begin == 0);
}

TEST_CASE("decodes that have a prefix in common are told from those that have not") {
  both_inputs made{of_decodes};
  auto& [inputs, device] = made;
  const auto shared_by = [&](const std::vector<std::vector<block_id>>& tables) {
    inputs->clear();
    for (const auto& blocks : tables) {
      const auto row = static_cast<std::int32_t>(inputs->rows());
      const auto position = static_cast<std::int32_t>(blocks.size()) * 16 - 1;
      inputs->add({row, 1, position, 0}, blocks);
      inputs->add_row({.position = position, .sequence = row});
      inputs->pick({});
    }
    inputs->deal_decodes();
    REQUIRE(device->send(*inputs, nullptr));
    std::int32_t shared = -1;
    REQUIRE(download(&shared, device->batch_of(*inputs).attention.shared, sizeof shared, nullptr));
    REQUIRE(wait(stream_ref{nullptr}));
    return shared;
  };
  const block_id a{7}, b{8}, c{9}, d{3};
  CHECK(shared_by({{a, b}, {c}, {d}}) == 0);
  CHECK(shared_by({{a, b}, {c}, {a, d}}) == 1);
  CHECK(shared_by({{a}, {b, a}}) == 0);
}

TEST_CASE("decodes that read what the same step stores are told from those that do not") {
  auto inputs = host_inputs::make(of_decodes);
  REQUIRE(inputs);
  struct member {
    std::vector<block_id> blocks;
    bool begins;
    bool at_block_end = true;
  };
  const auto reads = [&](const std::vector<member>& members) {
    inputs->clear();
    for (const member& one : members) {
      const auto row = static_cast<std::int32_t>(inputs->rows());
      const auto end = static_cast<std::int32_t>(one.blocks.size()) * 16;
      const auto position = one.at_block_end ? end - 1 : end - 16;
      inputs->add({row, 1, position, 0}, one.blocks, one.begins);
      inputs->add_row({.position = position, .sequence = row});
      inputs->pick({});
    }
    inputs->deal_decodes();
    return inputs->reads_own_stores();
  };
  const block_id a{7}, b{8}, c{9}, d{3}, e{1};
  // Whoever had rows before has nothing in front that is of this step.
  CHECK_FALSE(reads({{{a, b}, false}, {{a, c}, false}}));
  CHECK_FALSE(reads({{{a, b}, false}, {{a, c}, true, false}}));
  CHECK(reads({{{a, b}, false}, {{a, b, d}, true, false}}));
  // In any order, and wherever in the table.
  CHECK(reads({{{a, b, d, e}, true, false}, {{c}, true}, {{a, b}, false}}));
  CHECK_FALSE(reads({{{a, d}, true, false}, {{c}, true}, {{e, b}, false}}));
  // Nothing is in front of the first position.
  CHECK_FALSE(reads({{{a}, true, false}, {{b}, true, false}}));
}

TEST_CASE("short decodes alone in a step are not split where that is said") {
  input_limits limits = of_decodes;
  limits.whole_positions = 1024;
  auto inputs = host_inputs::make(limits);
  REQUIRE(inputs);
  const auto joins_of = [&](std::int32_t length, bool sample) {
    deal_decodes(*inputs, {length}, sample);
    return inputs->joins();
  };
  CHECK(joins_of(257, true) == 0);
  CHECK(joins_of(1024, true) == 0);
  CHECK(joins_of(1025, true) == 1);
  CHECK(joins_of(257, false) == 1);
}

TEST_CASE("long decodes alone are cut so that all warps have work, and into few parts") {
  input_limits limits = of_decodes;
  limits.whole_positions = 1024;
  limits.table_entries = 16384;
  both_inputs made{limits};
  auto& [inputs, device] = made;
  struct dealt {
    std::vector<attention_item> items, joins;
  };
  const auto deal = [&](const std::vector<std::int32_t>& lengths) {
    deal_decodes(*inputs, lengths, true);
    REQUIRE(device->send(*inputs, nullptr));
    const auto attention = device->batch_of(*inputs).attention;
    return dealt{items_at(attention.decode, attention.decode_items_max),
                 items_at(attention.join, attention.join_items_max)};
  };
  struct wish {
    std::vector<std::int32_t> lengths;
    std::size_t items;
    int team;
  };
  std::vector<std::int32_t> one_long(63, 500);
  one_long.push_back(32768);
  for (const wish& one :
       {wish{{32768}, 16, 8}, wish{{8192, 8192}, 16, 8}, wish{{8192, 8192, 8192}, 15, 8},
        wish{{1025}, 5, 8}, wish{std::vector<std::int32_t>(20, 4096), 60, 2},
        wish{std::vector<std::int32_t>(32, 4096), 32, 4}, wish{one_long, 64 + 63, 1}}) {
    CAPTURE(one.lengths.size(), one.lengths.back());
    const dealt got = deal(one.lengths);
    CHECK(got.items.size() == one.items);
    CHECK(kernels::cuda::turned_team({.kv_heads = limits.kv_heads},
                                     static_cast<std::int64_t>(got.items.size())) == one.team);
    // Parts of a sequence are equal but for the last, and are all of it.
    for (const auto& join : got.joins) {
      const std::int32_t end = join.of.first_position + 1;
      CHECK(join.split_length % 64 == 0);
      CHECK((join.split - 1) * join.split_length < end);
      CHECK(join.split * join.split_length >= end);
      std::int32_t found = 0;
      for (const auto& item : got.items)
        if (item.of.row_begin == join.of.row_begin) {
          CHECK(item.split == found);
          CHECK(item.partial == join.partial + found++);
          CHECK(item.split_length == join.split_length);
        }
      CHECK(found == join.split);
    }
  }
}

TEST_CASE("rows that sample beside others have items of their own") {
  const input_limits limits{
      .rows = 1024, .sequences = 4, .table_entries = 1024, .group = 4, .kv_heads = 8, .dim = 128};
  both_inputs made{limits};
  auto& [inputs, device] = made;
  // A prompt that samples, a decode, a part of a prompt that does not sample, and a long prompt.
  const std::vector<kernels::cuda::sequence_rows> sequences{
      {0, 100, 0, 0}, {100, 1, 90, 0}, {101, 33, 300, 0}, {134, 70, 2930, 0}};
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    const auto& rows = sequences[s];
    inputs->add(rows, std::vector<block_id>(
                          static_cast<std::size_t>(rows.first_position + rows.rows) / 16 + 1));
    for (std::int32_t i = 0; i < rows.rows; ++i)
      inputs->add_row(
          {.position = rows.first_position + i, .sequence = static_cast<std::int32_t>(s)});
    if (s != 2)
      inputs->pick({});
  }
  inputs->order_prompts();
  inputs->deal_decodes();
  REQUIRE(device->send(*inputs, nullptr));
  const auto batch = device->batch_of(*inputs);
  const auto& own = batch.sampling;
  const auto fetch = [&]<class T>(const T* from, std::int64_t count) {
    std::vector<T> got(static_cast<std::size_t>(count));
    REQUIRE(download(got.data(), from, got.size() * sizeof(T), nullptr));
    REQUIRE(wait(stream_ref{nullptr}));
    return got;
  };
  REQUIRE(own.rows == 3);
  CHECK(own.prefill_items == 0);
  const auto rows = fetch(own.batch, 3);
  const auto alone = fetch(own.sequences, 3);
  const auto all = fetch(batch.attention.sequences, 4);
  const std::int32_t from[]{0, 1, 3}, last[]{99, 90, 2999};
  for (std::size_t i = 0; i < 3; ++i) {
    CAPTURE(i);
    CHECK(rows[i].position == last[i]);
    CHECK(rows[i].sequence == static_cast<std::int32_t>(i));
    CHECK(alone[i].row_begin == static_cast<std::int32_t>(i));
    CHECK(alone[i].rows == 1);
    CHECK(alone[i].first_position == last[i]);
    CHECK(alone[i].table_begin == all[static_cast<std::size_t>(from[i])].table_begin);
  }
  // The longest is split into twelve, and joined; the others behind it are whole.
  REQUIRE(own.join_items_max == 1);
  REQUIRE(own.decode_items_max == 14);
  CHECK(fetch(own.join, 1)[0].of.row_begin == 2);
  const auto items = fetch(own.decode, 14);
  for (std::int32_t i = 0; i < 12; ++i) {
    CHECK(items[static_cast<std::size_t>(i)].of.row_begin == 2);
    CHECK(items[static_cast<std::size_t>(i)].split == i);
  }
  CHECK(items[12].of.row_begin == 0);
  CHECK(items[13].of.row_begin == 1);
  CHECK(fetch(own.decode_count, 1)[0] == 14);
  CHECK(fetch(own.taken, 1)[0] == 0);
  // The step's own items are the decode's alone.
  CHECK(batch.attention.decode_items_max == 1);
}
