#include "engine/exec/cpu_executor.hpp"

#include "engine/exec/step_driver.hpp"
#include "engine/weights/test_checkpoint.hpp"

#include <catch2/catch.hpp>
#include <fmt/core.h>

#include <limits>

using namespace troupe;
using namespace troupe::engine;

namespace {

constexpr std::string_view tiny = R"({"architectures":["LlamaForCausalLM"],"hidden_size":32,
  "intermediate_size":32,"num_hidden_layers":1,"num_attention_heads":2,"num_key_value_heads":1,
  "vocab_size":64,"max_position_embeddings":128})";

executor_options tiny_options(const test::temporary_folder& folder) {
  folder.write("config.json", tiny);
  executor_options options;
  options.model_dir = folder.path();
  options.load_format = "dummy";
  options.max_num_seqs = 4;
  options.max_num_batched_tokens = 64;
  options.threads = 2;
  return options;
}

error load_error(executor_options options) {
  cpu_executor run{std::move(options)};
  const auto loaded = run.load({});
  return loaded ? error{errc::none, ""} : loaded.error();
}

/// Writes the tiny model as a checkpoint in which the embedding of token 7 is NaN.
void write_poisoned(const test::temporary_folder& folder) {
  const auto source = make_dummy_weights({.seed = 1, .type = kernels::dtype::f32});
  const std::string layer = "model.layers.0.";
  const std::vector<weight_request> tensors{{"model.embed_tokens.weight", {64, 32}},
                                            {"lm_head.weight", {64, 32}},
                                            {"model.norm.weight", {32}},
                                            {layer + "input_layernorm.weight", {32}},
                                            {layer + "post_attention_layernorm.weight", {32}},
                                            {layer + "self_attn.q_proj.weight", {32, 32}},
                                            {layer + "self_attn.k_proj.weight", {16, 32}},
                                            {layer + "self_attn.v_proj.weight", {16, 32}},
                                            {layer + "self_attn.o_proj.weight", {32, 32}},
                                            {layer + "mlp.gate_proj.weight", {32, 32}},
                                            {layer + "mlp.up_proj.weight", {32, 32}},
                                            {layer + "mlp.down_proj.weight", {32, 32}}};
  std::string header;
  std::string data;
  for (const weight_request& wanted : tensors) {
    const auto tensor = source->get(wanted);
    REQUIRE(tensor);
    const std::size_t bytes = static_cast<std::size_t>(tensor->view.size()) * 4;
    std::string shape = std::to_string(wanted.shape[0]);
    if (wanted.shape.size() == 2)
      shape += "," + std::to_string(wanted.shape[1]);
    header += (header.empty() ? "{\"" : ",\"") + wanted.name + R"(":{"dtype":"F32","shape":[)" +
              shape + R"(],"data_offsets":[)" + std::to_string(data.size()) + "," +
              std::to_string(data.size() + bytes) + "]}";
    data.append(static_cast<const char*>(tensor->view.data), bytes);
  }
  const float bad = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(data.data() + 7 * 32 * 4, &bad, 4);
  folder.write("model.safetensors", test::safetensors_bytes(header + "}", data));
}

} // namespace

TEST_CASE("a row whose logits are not finite fails alone") {
  const test::temporary_folder folder;
  executor_options options = tiny_options(folder);
  options.load_format = "auto";
  write_poisoned(folder);
  cpu_executor run{options};
  REQUIRE(run.load({}));
  test::step_driver drive{run};
  drive.add(request_id{1}, {1, 2, 3}, test::sampling_at(), {block_id{0}});
  drive.add(request_id{2}, {1, 7, 3}, test::sampling_at(), {block_id{1}});
  drive.row(request_id{1}, 0, 3, true);
  drive.row(request_id{2}, 0, 3, true);
  const auto brought = drive.run();
  REQUIRE(brought);
  REQUIRE(brought->tokens.size() == 1);
  CHECK(brought->tokens[0].id == request_id{1});
  REQUIRE(brought->failed.size() == 1);
  CHECK(brought->failed[0].id == request_id{2});
  CHECK(brought->failed[0].code == errc::corrupt_data);
  // What was planned ahead of the failed row fails with it, and the other sequence goes on.
  drive.row(request_id{1}, 3, 1, true);
  drive.row(request_id{2}, 3, 1, true);
  const auto next = drive.run();
  REQUIRE(next);
  CHECK(next->tokens.size() == 1);
  REQUIRE(next->failed.size() == 1);
  CHECK(next->failed[0].id == request_id{2});
  drive.remove(request_id{2});
  drive.row(request_id{1}, 4, 1, true);
  const auto last = drive.run();
  REQUIRE(last);
  CHECK(last->tokens.size() == 1);
}

TEST_CASE("the KV cache is sized by what is given, or by need") {
  const test::temporary_folder folder;
  executor_options options = tiny_options(folder);
  const auto told = cpu_executor{options}.foresee(0);
  REQUIRE(told);
  cpu_executor run{options};
  REQUIRE(run.load({}));
  // Four sequences of 128 tokens in blocks of 16.
  CHECK(run.describe().num_blocks == 32);
  CHECK(told->num_blocks == 32);
  CHECK(told->kv_bytes_per_block == run.describe().kv_bytes_per_block);
  CHECK(told->work_bytes > 0);
  // Rows of so small a model are padded much.
  const auto weighed = static_cast<double>(run.describe().weight_bytes);
  CHECK(std::abs(static_cast<double>(told->weight_bytes) / weighed - 1) < 0.25);
  options.kv_cache_bytes = 10 * run.describe().kv_bytes_per_block + 1;
  cpu_executor by_bytes{options};
  REQUIRE(by_bytes.load({}));
  CHECK(by_bytes.describe().num_blocks == 10);
  options.kv_cache_bytes = 5 * run.describe().kv_bytes_per_block;
  const error small = load_error(options);
  CHECK(small.code == errc::out_of_memory);
  CHECK(cpu_executor{options}.foresee(0).error().note == small.note);
  CHECK(small.note.find("largest max_model_len that fits is 80") != std::string::npos);
  options.num_blocks = 4'000'000'000U;
  CHECK(load_error(options).code == errc::out_of_memory);
}

TEST_CASE("host memory for blocks is what is given, and never most of what there is") {
  const test::temporary_folder folder;
  executor_options options = tiny_options(folder);
  cpu_executor none{options};
  REQUIRE(none.load({}));
  CHECK(none.describe().num_host_blocks == 0);
  test::step_driver drive{none};
  drive.save(block_id{0}, host_block{0});
  CHECK(drive.run().error().code == errc::invalid_argument);
  const std::uint64_t block = none.describe().kv_bytes_per_block;
  options.swap_bytes = 10 * block + 1;
  cpu_executor ten{options};
  REQUIRE(ten.load({}));
  CHECK(ten.describe().num_host_blocks == 10);
  options.swap_bytes = std::uint64_t{1} << 60U;
  options.ranks = 2;
  CHECK(plan_host_blocks(options, block, 1000 * block) == 250);
  options.ranks = 1;
  cpu_executor most{options};
  REQUIRE(most.load({}));
  CHECK(most.describe().num_host_blocks > 10);
  CHECK(most.describe().num_host_blocks < (std::uint64_t{1} << 60U) / block / 2);
}

TEST_CASE("the tokens of a step are measured when they are not given") {
  const test::temporary_folder folder;
  executor_options options = tiny_options(folder);
  options.max_num_batched_tokens.reset();
  cpu_executor run{options};
  REQUIRE(run.load({}));
  CHECK(run.describe().batched_tokens_measured);
  CHECK(run.describe().max_num_batched_tokens >= 16);
  CHECK(run.describe().max_num_batched_tokens <= 8192);
}

TEST_CASE("options that are wrong are refused by name") {
  const test::temporary_folder folder;
  const executor_options good = tiny_options(folder);
  CHECK(load_error(good).code == errc::none);
  const auto with = [&](auto change) {
    executor_options options = good;
    change(options);
    return load_error(options);
  };
  CHECK(with([](auto& o) { o.block_size = 20; }).note.find("block_size 20") != std::string::npos);
  for (const std::string_view name : {"int4", "float16", "half"}) {
    const std::string quoted = fmt::format("'{}' is not served on the CPU", name);
    CHECK(with([&](auto& o) { o.dtype = name; }).note.find(quoted) != std::string::npos);
    CHECK(with([&](auto& o) { o.kv_cache_dtype = name; }).note.find(quoted) != std::string::npos);
  }
  CHECK(with([](auto& o) { o.load_format = "gguf"; }).note.find("'gguf'") != std::string::npos);
  CHECK(with([](auto& o) { o.max_model_len = 129; }).note.find("128") != std::string::npos);
  CHECK(with([](auto& o) { o.load_format = "auto"; }).code == errc::not_found);
  CHECK(with([](auto& o) { o.model_dir /= "nowhere"; }).code == errc::not_found);
}

TEST_CASE("numerics tell apart what gives other tokens, and nothing else") {
  const test::temporary_folder folder;
  const auto numerics = [&](auto change) {
    executor_options options = tiny_options(folder);
    change(options);
    cpu_executor run{options};
    REQUIRE(run.load({}));
    return run.describe().numerics;
  };
  const auto base = numerics([](auto&) {});
  CHECK(numerics([](auto& o) { o.threads = 1; }) == base);
  CHECK(numerics([](auto& o) { o.num_blocks = 64; }) == base);
  CHECK(numerics([](auto& o) { o.seed = 1; }) != base);
  CHECK(numerics([](auto& o) { o.dtype = "bfloat16"; }) != base);
  CHECK(numerics([](auto& o) { o.kv_cache_dtype = "bfloat16"; }) != base);
}

TEST_CASE("the table of executors names those that there are") {
  CHECK(make_executor("cpu", {}));
  CHECK(make_executor("simulated", {}));
  const auto none = make_executor("abacus", {});
  REQUIRE(!none);
  CHECK(none.error().code == errc::not_found);
  CHECK(none.error().note.find("cpu, simulated") != std::string::npos);
}
