#include "engine/models/families.hpp"
#include "engine/models/naive.hpp"
#include "engine/models/rope.hpp"
#include "engine/weights/test_checkpoint.hpp"

#include <catch2/catch.hpp>

#include <cmath>
#include <numbers>
#include <numeric>

using namespace troupe;
using namespace troupe::engine;

namespace {

constexpr std::string_view llama = R"({"architectures":["LlamaForCausalLM"],"hidden_size":40,
  "intermediate_size":56,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,
  "head_dim":16,"vocab_size":75,"max_position_embeddings":128,
  "rope_scaling":{"rope_type":"linear","factor":2.0}})";
constexpr std::string_view qwen3 = R"({"architectures":["Qwen3ForCausalLM"],"hidden_size":48,
  "intermediate_size":64,"num_hidden_layers":3,"num_attention_heads":6,"num_key_value_heads":2,
  "head_dim":32,"vocab_size":130,"max_position_embeddings":128,"rope_theta":1000000.0,
  "tie_word_embeddings":true})";

result<model_config> config_of(std::string_view text) {
  const test::temporary_folder folder;
  folder.write("config.json", text);
  return load_model_config(folder.path());
}

/// The logits behind `tokens`, by the recipe. `narrow`: the last layer computes the last row alone.
std::vector<float> forward(const load_context& from, const std::vector<token_id>& tokens,
                           bool narrow) {
  const auto loaded = load_model(from);
  REQUIRE(loaded);
  const model_config& config = from.config;
  const auto rows = static_cast<std::int64_t>(tokens.size());
  auto work = activations::make(
      config,
      {.rows = rows, .sampled_rows = 1, .threads = 2, .compute = from.compute, .kv = from.compute});
  REQUIRE(work);
  const auto kv_heads = static_cast<std::int32_t>(config.kv_heads);
  const auto dim = static_cast<std::int32_t>(config.head_dim);
  const std::int64_t blocks = rows / 16 + 1;
  const std::size_t half = static_cast<std::size_t>(blocks) *
                           kernels::cpu::kv_block_bytes(from.compute, 16, kv_heads, dim);
  auto memory = kernels::buffer::make(2 * half * static_cast<std::size_t>(config.layers));
  REQUIRE(memory);
  std::vector<kernels::cpu::kv_cache> caches;
  for (std::size_t i = 0; i < static_cast<std::size_t>(config.layers); ++i)
    caches.push_back({.k = memory->as<std::byte>() + 2 * i * half,
                      .v = memory->as<std::byte>() + (2 * i + 1) * half,
                      .type = from.compute,
                      .blocks = blocks,
                      .block_size = 16,
                      .kv_heads = kv_heads,
                      .dim = dim});
  std::vector<block_id> table;
  for (std::int64_t b = 0; b < blocks; ++b)
    table.push_back(block_id{static_cast<std::uint32_t>(blocks - 1 - b)});
  const kernels::cpu::sequence_rows sequence{
      .row_begin = 0, .rows = rows, .first_position = 0, .blocks = table};
  const std::int64_t last = rows - 1;
  const kernels::cpu::sequence_rows sampling{
      .row_begin = last, .rows = 1, .first_position = last, .blocks = table};
  kernels::cpu::team team{2};
  team.run([&](kernels::cpu::member& m) {
    (*loaded)->forward(m,
                       {.tokens = tokens,
                        .sequences = {&sequence, 1},
                        .sampled_rows = {&last, 1},
                        .sampling = {&sampling, narrow ? 1U : 0U},
                        .caches = caches},
                       *work);
  });
  const float* const logits = work->logits(0);
  return {logits, logits + config.vocab_size};
}

} // namespace

TEST_CASE("recipes compute what the definitions say") {
  for (const std::string_view text : {llama, qwen3}) {
    const auto config = config_of(text);
    REQUIRE(config);
    for (const auto type : {kernels::dtype::f32, kernels::dtype::bf16}) {
      const auto source = make_dummy_weights({.seed = 3, .type = type});
      const load_context from{.config = *config,
                              .source = source.get(),
                              .compute = type,
                              .max_positions = 128,
                              .helpers = nullptr,
                              .progress = {}};
      test::naive_decoder naive{*config, *source};
      for (const std::size_t size : {1U, 5U, 70U}) {
        std::vector<token_id> tokens(size);
        for (std::size_t i = 0; i < size; ++i)
          tokens[i] = static_cast<token_id>((31 * i + 7) % 75);
        const std::vector<double> wanted = naive.logits(tokens);
        const std::vector<float> got = forward(from, tokens, true);
        CHECK(got == forward(from, tokens, false));
        double error = 0;
        double spread = 0;
        for (std::size_t i = 0; i < wanted.size(); ++i) {
          error = std::max(error, std::abs(wanted[i] - double{got[i]}));
          spread = std::max(spread, std::abs(wanted[i]));
        }
        CAPTURE(config->architecture, size, error, spread);
        CHECK(spread > 0.1);
        CHECK(error < (type == kernels::dtype::f32 ? 1e-5 : 4e-2) * spread);
      }
    }
  }
}

TEST_CASE("tensors that are missing, of another shape or left over are named") {
  const auto config = config_of(R"({"architectures":["LlamaForCausalLM"],"hidden_size":2,
    "intermediate_size":2,"num_hidden_layers":1,"num_attention_heads":1,"vocab_size":2,
    "tie_word_embeddings":true})");
  REQUIRE(config);
  const std::string layer = "model.layers.0.";
  const std::vector<std::string> matrices{
      "model.embed_tokens.weight",       layer + "self_attn.q_proj.weight",
      layer + "self_attn.k_proj.weight", layer + "self_attn.v_proj.weight",
      layer + "self_attn.o_proj.weight", layer + "mlp.gate_proj.weight",
      layer + "mlp.up_proj.weight",      layer + "mlp.down_proj.weight"};
  const std::vector<std::string> vectors{layer + "input_layernorm.weight",
                                         layer + "post_attention_layernorm.weight",
                                         "model.norm.weight"};
  // Loads a checkpoint without `without`, with `extra`, and with `odd` of another shape.
  const auto load = [&](std::string_view without, std::string_view extra, std::string_view odd) {
    std::string header;
    std::size_t at = 0;
    const auto put = [&](const std::string& name, bool matrix) {
      if (name == without)
        return;
      const std::size_t bytes = name == odd ? 4 : (matrix ? 16 : 8);
      header += (header.empty() ? "{\"" : ",\"") + name + R"(":{"dtype":"F32","shape":)" +
                (name == odd ? "[1]" : (matrix ? "[2,2]" : "[2]")) + R"(,"data_offsets":[)" +
                std::to_string(at) + "," + std::to_string(at + bytes) + "]}";
      at += bytes;
    };
    for (const std::string& name : matrices)
      put(name, true);
    for (const std::string& name : vectors)
      put(name, false);
    if (!extra.empty())
      put(std::string{extra}, true);
    const test::temporary_folder folder;
    folder.write("model.safetensors", test::safetensors_bytes(header + "}", std::string(at, '\0')));
    const auto source = open_safetensors(folder.path());
    REQUIRE(source);
    const auto loaded = load_model({.config = *config,
                                    .source = source->get(),
                                    .compute = kernels::dtype::f32,
                                    .max_positions = 16,
                                    .helpers = nullptr,
                                    .progress = {}});
    return loaded ? error{errc::none, ""} : loaded.error();
  };
  CHECK(load("", "", "").code == errc::none);
  CHECK(load("", "lm_head.weight", "").code == errc::none);
  for (const auto& names : {matrices, vectors})
    for (const std::string& name : names) {
      CHECK(load(name, "", "").code == errc::not_found);
      CHECK(load(name, "", "").note.find(name) != std::string::npos);
      CHECK(load("", "", name).code == errc::bad_shape);
      CHECK(load("", "", name).note.find(name) != std::string::npos);
    }
  const error extra = load("", "model.layers.0.self_attn.q_proj.bias", "");
  CHECK(extra.code == errc::unsupported);
  CHECK(extra.note.find("'model.layers.0.self_attn.q_proj.bias'") != std::string::npos);
}

TEST_CASE("rope frequencies follow their scaling") {
  rope_config rope{.scaling = rope_scaling::none, .theta = 10000.0};
  const auto plain = rope_frequencies(rope, 64);
  CHECK(plain[0] == 1.0F);
  CHECK(plain[16] == Approx(0.01));
  rope.scaling = rope_scaling::linear;
  rope.factor = 4;
  CHECK(rope_frequencies(rope, 64)[16] == Approx(0.0025));
  rope.scaling = rope_scaling::llama3;
  rope.original_max_position_embeddings = 8192;
  const auto scaled = rope_frequencies(rope, 64);
  for (std::size_t i = 0; i < scaled.size(); ++i) {
    const double wave = 2 * std::numbers::pi / double{plain[i]};
    if (wave < 8192.0 / 4)
      CHECK(scaled[i] == plain[i]);
    else if (wave > 8192.0)
      CHECK(scaled[i] == Approx(plain[i] / 4));
    else
      CHECK((scaled[i] < plain[i] && scaled[i] > plain[i] / 4));
  }
}

TEST_CASE("an unknown architecture is answered with those that are served") {
  const auto config = config_of(R"({"architectures":["GPT2LMHeadModel"]})");
  REQUIRE(!config);
  CHECK(config.error().code == errc::unsupported);
  for (const model_family& family : model_families())
    CHECK(config.error().note.find(family.defaults.name) != std::string::npos);
}
