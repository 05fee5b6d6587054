#include "engine/weights/model_config.hpp"

#include "engine/weights/test_checkpoint.hpp"

#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <array>

using namespace troupe;
using namespace troupe::engine;

namespace {

constexpr std::array<architecture_defaults, 3> known{{
    {.name = "LlamaForCausalLM"},
    {.name = "MistralForCausalLM", .sliding_window = true},
    {.name = "Qwen3ForCausalLM", .head_dim = 128},
}};

/// A config.json of Llama with `more` after the fields that must be there.
std::string llama(std::string_view more = "", std::string_view name = "LlamaForCausalLM") {
  return R"({"architectures":[")" + std::string{name} +
         R"("],"hidden_size":64,"intermediate_size":96,"num_hidden_layers":2,)"
         R"("num_attention_heads":4,"vocab_size":100)" +
         std::string{more} + "}";
}

result<model_config> parse(std::string_view text) {
  return parse_model_config(text, "config.json", known);
}

} // namespace

TEST_CASE("a config.json that says little gets the defaults of its architecture") {
  const auto config = parse(llama());
  REQUIRE(config);
  CHECK(config->architecture == "LlamaForCausalLM");
  CHECK(config->head_dim == 16);
  CHECK(config->kv_heads == 4);
  CHECK(config->max_position_embeddings == 2048);
  CHECK(config->rms_norm_eps == 1e-6);
  CHECK(config->rope.theta == 10000.0);
  CHECK(config->rope.scaling == rope_scaling::none);
  CHECK(!config->tie_word_embeddings);
  CHECK(config->dtype == kernels::dtype::f32);
  CHECK(config->eos_token_ids.empty());
  CHECK(parse(llama("", "Qwen3ForCausalLM"))->head_dim == 128);
}

TEST_CASE("old and new key names mean the same") {
  const auto old_names = parse(
      llama(R"(,"torch_dtype":"bfloat16","rope_theta":500000.0,"eos_token_id":2,"rope_scaling":{)"
            R"("type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4,)"
            R"("original_max_position_embeddings":8192})"));
  const auto new_names = parse(llama(
      R"(,"dtype":"torch.bfloat16","eos_token_id":[2],"rope_parameters":{"rope_theta":500000.0,)"
      R"("rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4,)"
      R"("original_max_position_embeddings":8192})"));
  REQUIRE(old_names);
  REQUIRE(new_names);
  for (const auto& config : {*old_names, *new_names}) {
    CHECK(config.rope.scaling == rope_scaling::llama3);
    CHECK(config.rope.theta == 500000.0);
    CHECK(config.rope.factor == 8.0);
    CHECK(config.rope.original_max_position_embeddings == 8192.0);
    CHECK(config.dtype == kernels::dtype::bf16);
    CHECK(config.eos_token_ids == std::vector<token_id>{2});
  }
  fingerprint one;
  fingerprint two;
  old_names->add_to(one);
  new_names->add_to(two);
  CHECK(one.value() == two.value());
}

TEST_CASE("linear scaling, a null rope_scaling and rope_type default are read") {
  CHECK(parse(llama(R"(,"rope_scaling":{"rope_type":"linear","factor":2})"))->rope.scaling ==
        rope_scaling::linear);
  CHECK(parse(llama(R"(,"rope_scaling":null)"))->rope.scaling == rope_scaling::none);
  CHECK(parse(llama(R"(,"rope_parameters":{"rope_type":"default","rope_theta":7})"))->rope.theta ==
        7.0);
}

TEST_CASE("what would change the computation is refused by name") {
  struct refused {
    std::string text;
    std::string says;
  };
  const refused cases[] = {
      {llama(R"(,"quantization_config":{"bits":4})"), "'quantization_config'"},
      {llama(R"(,"attention_bias":true)"), "'attention_bias'"},
      {llama(R"(,"mlp_bias":true)"), "'mlp_bias'"},
      {llama(R"(,"use_sliding_window":true)"), "'use_sliding_window'"},
      {llama(R"(,"hidden_act":"gelu")"), "'gelu'"},
      {llama(R"(,"partial_rotary_factor":0.5)"), "'partial_rotary_factor'"},
      {llama(R"(,"rope_parameters":{"partial_rotary_factor":0.5})"), "'partial_rotary_factor'"},
      {llama(R"(,"rope_scaling":{"rope_type":"yarn","factor":4})"), "'yarn'"},
      {llama(R"(,"torch_dtype":"float64")"), "'float64'"},
      {llama(R"(,"layer_types":["sliding_attention"])"), "'layer_types'"},
      {llama("", "MistralForCausalLM"), "'sliding_window'"},
      {llama(R"(,"sliding_window":4096)", "MistralForCausalLM"), "'sliding_window'"},
      {llama("", "MixtralForCausalLM"), "LlamaForCausalLM, MistralForCausalLM, Qwen3ForCausalLM"},
  };
  for (const refused& one : cases) {
    const auto config = parse(one.text);
    CAPTURE(one.text);
    REQUIRE(!config);
    CAPTURE(config.error().note);
    CHECK(config.error().code == errc::unsupported);
    CHECK(config.error().note.find(one.says) != std::string::npos);
    CHECK(config.error().note.starts_with("config.json: "));
  }
  CHECK(parse(llama(R"(,"sliding_window":null)", "MistralForCausalLM")));
  CHECK(parse(llama(R"(,"quantization_config":null,"use_sliding_window":false)")));
  CHECK(parse(llama(R"(,"sliding_window":4096,"layer_types":["full_attention"])")));
}

TEST_CASE("fields of a wrong type or out of range are named") {
  const std::pair<std::string, std::string> cases[] = {
      {R"({})", "'architectures' is missing"},
      {R"({"architectures":[]})", "'architectures' is []"},
      {R"({"architectures":["LlamaForCausalLM"]})", "'hidden_size' is missing"},
      {llama(R"(,"num_key_value_heads":3)"), "no multiple"},
      {llama(R"(,"num_key_value_heads":0)"), "'num_key_value_heads' is 0"},
      {llama(R"(,"num_key_value_heads":"4")"), "'num_key_value_heads' is \"4\""},
      {llama(R"(,"head_dim":-16)"), "'head_dim' is -16"},
      {llama(R"(,"head_dim":15)"), "not even"},
      {llama(R"(,"head_dim":18446744073709551615)"), "'head_dim'"},
      {llama(R"(,"max_position_embeddings":1e9)"), "'max_position_embeddings'"},
      {llama(R"(,"rms_norm_eps":-1)"), "'rms_norm_eps'"},
      {llama(R"(,"rope_theta":"x")"), "'rope_theta'"},
      {llama(R"(,"rope_scaling":[1])"), "'rope_scaling'"},
      {llama(R"(,"rope_scaling":{"rope_type":"linear"})"), "'factor' is missing"},
      {llama(R"(,"rope_scaling":{"type":"llama3","factor":8,"low_freq_factor":4,)"
             R"("high_freq_factor":4,"original_max_position_embeddings":8})"),
       "'high_freq_factor'"},
      {llama(R"(,"eos_token_id":100)"), "'eos_token_id'"},
      {llama(R"(,"eos_token_id":[1,"x"])"), "'eos_token_id'"},
      {llama(R"(,"tie_word_embeddings":1)"), "'tie_word_embeddings'"},
  };
  for (const auto& [text, says] : cases) {
    const auto config = parse(text);
    CAPTURE(text);
    REQUIRE(!config);
    CAPTURE(config.error().note);
    CHECK(config.error().code == errc::invalid_argument);
    CHECK(config.error().note.find(says) != std::string::npos);
  }
  CHECK(parse("[]").error().code == errc::corrupt_data);
  CHECK(parse("{").error().code == errc::corrupt_data);
  CHECK(parse(std::string(100000, '[')).error().code == errc::corrupt_data);
}

TEST_CASE("random damage to a config.json never does worse than an error") {
  splitmix64 random{11};
  const std::string good = llama(R"(,"eos_token_id":[1,2],"rope_scaling":{"rope_type":"linear",)"
                                 R"("factor":2},"rms_norm_eps":1e-5)");
  for (int round = 0; round < 5000; ++round) {
    std::string text = good;
    for (std::uint64_t i = 0; i <= random.below(4); ++i)
      text[random.below(text.size())] = static_cast<char>(random());
    const auto config = parse(text);
    CHECK((config || !config.error().note.empty()));
  }
}

TEST_CASE("a missing config.json is not found") {
  const test::temporary_folder folder;
  CHECK(read_model_config(folder.path(), known).error().code == errc::not_found);
  folder.write("config.json", llama());
  CHECK(read_model_config(folder.path(), known));
}
