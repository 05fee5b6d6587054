#include "troupe/config/model.hpp"

#include <set>

#include "config/test_repository.hpp"
#include "troupe/config/engine_arguments.hpp"

using namespace troupe;
using namespace troupe::config;

namespace {

model_config load_bard(test_repository& repo, const std::string& model_json) {
  repo.write("models/bard/1/model.json", model_json);
  return repo.load().models.at(0);
}

} // namespace

TEST_CASE("every honoured argument is read") {
  test_repository repo;
  repo.write("models/bard/1/chat.jinja", "{{ x }}");
  const auto m = load_bard(repo, R"({"model": "../hf", "tokenizer": "../hf", "dtype": "float",
    "served_model_name": ["bard", "will"], "chat_template": "chat.jinja", "load_format": "dummy",
    "max_model_len": 512, "max_num_seqs": 7, "max_num_batched_tokens": 64, "block_size": 32,
    "kv_cache_memory_bytes": 1048576, "num_gpu_blocks_override": 99, "enable_prefix_caching": false,
    "enable_chunked_prefill": true, "long_prefill_token_threshold": 16,
    "scheduling_policy": "priority", "seed": 9000000000000000000, "tensor_parallel_size": 1,
    "cpu_threads": 2, "swap_space": 0.5, "generation_config": "vllm", "override_generation_config": {"top_k": 5}})");
  const auto& e = m.engine;
  CHECK(*e.dtype == dtype_choice::float32);
  CHECK(e.served_model_name->at(1) == "will");
  CHECK(**e.chat_template == "{{ x }}");
  CHECK(*e.load_format == load_format::dummy);
  CHECK(**e.max_model_len == 512);
  CHECK(*e.max_num_seqs == 7);
  CHECK(**e.max_num_batched_tokens == 64);
  CHECK(*e.block_size == 32);
  CHECK(**e.kv_cache_memory_bytes == 1048576);
  CHECK(**e.num_gpu_blocks_override == 99);
  CHECK_FALSE(*e.enable_prefix_caching);
  CHECK(*e.long_prefill_token_threshold == 16);
  CHECK(*e.scheduling_policy == scheduling_policy::priority);
  CHECK(*e.seed == 9'000'000'000'000'000'000U);
  CHECK(*e.cpu_threads == 2);
  CHECK(**e.swap_space == 0.5);
  CHECK(*m.generation.top_k == 5);
}

TEST_CASE("the types to compute in have vLLM's names") {
  const auto [name, type, cache] = GENERATE(table<std::string, dtype_choice, std::string>({
      {"auto", dtype_choice::auto_detect, "auto"},
      {"bfloat16", dtype_choice::bfloat16, "bfloat16"},
      {"float16", dtype_choice::float16, "float16"},
      {"half", dtype_choice::float16, "float16"},
      {"float32", dtype_choice::float32, "float32"},
      {"float", dtype_choice::float32, "float32"},
  }));
  CAPTURE(name);
  test_repository repo;
  const auto m = load_bard(repo, R"({"model": "../hf", "dtype": ")" + name +
                                     R"(", "kv_cache_dtype": ")" + cache + "\"}");
  CHECK(*m.engine.dtype == type);
}

TEST_CASE("every row of the honoured table is known to the reader") {
  const test_repository repo;
  for (const auto& row : honoured_arguments()) {
    load_options options;
    options.set = {"models.bard." + std::string{row.name} + "=null"};
    CAPTURE(row.name);
    CHECK(repo.check(options).config);
    // An object fits none of them but one, so it must be refused as a value, not as a name.
    options.set = {"models.bard." + std::string{row.name} + "={\"x\": 1}"};
    const auto loaded = repo.check(options);
    REQUIRE_FALSE(loaded.config);
    for (const auto& d : loaded.diagnostics)
      CHECK_FALSE(contains(d.message, "unknown key '" + std::string{row.name}));
  }
}

TEST_CASE("the three tables do not overlap and say something in every row") {
  std::set<std::string_view> names;
  std::size_t rows = 0;
  for (const auto table :
       {honoured_arguments(), ineffective_arguments(), unsupported_arguments()}) {
    for (const auto& row : table) {
      CAPTURE(row.name);
      CHECK_FALSE(row.help.empty());
      CHECK(row.least <= row.most);
      names.insert(row.name);
      ++rows;
    }
  }
  CHECK(names.size() == rows);
  CHECK(rows > 150);
}

TEST_CASE("arguments without effect are accepted and listed") {
  test_repository repo;
  const auto m = load_bard(repo, R"({"model": "../hf", "preemption_mode": "swap",
    "enforce_eager": true, "pipeline_parallel_size": 1, "quantization": null,
    "speculative_config": {}, "cpu_offload_gb": 0.0, "kv_cache_dtype": "auto"})");
  std::set<std::string> names;
  for (const auto& a : m.without_effect)
    names.insert(a.name);
  CHECK(names == std::set<std::string>{"preemption_mode", "enforce_eager", "pipeline_parallel_size",
                                       "speculative_config", "cpu_offload_gb", "kv_cache_dtype"});
  repo.write("models/bard/1/model.json", R"({"model": "../hf", "gpu_memory_utilization": 2})");
  CHECK(about(repo.check(), "models.bard.gpu_memory_utilization")->code == errc::invalid_argument);
}

TEST_CASE("what cannot be had is refused by name") {
  test_repository repo;
  const auto [name, value, code] = GENERATE(table<std::string, std::string, errc>({
      {"quantization", "\"awq\"", errc::unsupported},
      {"enable_lora", "true", errc::unsupported},
      {"enable_lora", "\"true\"", errc::unsupported},
      {"speculative_config", "{\"model\": \"x\"}", errc::unsupported},
      {"pipeline_parallel_size", "2", errc::unsupported},
      {"tensor_parallel_size", "3", errc::unsupported},
      {"tensor_parallel_size", "16", errc::unsupported},
      {"kv_cache_dtype", "\"fp8\"", errc::unsupported},
      {"kv_cache_dtype", "\"float32\"", errc::conflict},
      {"kv_cache_dtype", "\"float16\"", errc::conflict},
      {"tokenizer_mode", "\"slow\"", errc::unsupported},
      {"dtype", "\"int8\"", errc::invalid_argument},
      {"load_format", "\"gguf\"", errc::unsupported},
      {"load_format", "\"saftensors\"", errc::invalid_argument},
      {"pipeline_parallel_size", "\"2\"", errc::invalid_argument},
      {"block_size", "24", errc::invalid_argument},
      {"max_model_len", "0", errc::invalid_argument},
      {"max_model_len", "1", errc::invalid_argument},
      {"max_model_len", "2048", errc::conflict},
      {"max_num_batched_tokens", "2147483648", errc::invalid_argument},
      {"long_prefill_token_threshold", "4096", errc::conflict},
      {"served_model_name", "[]", errc::invalid_argument},
      {"chat_template", "\"none.jinja\"", errc::not_found},
      {"generation_config", "\"none\"", errc::not_found},
      {"model", "\"facebook/opt-125m\"", errc::not_found},
      {"max_num_seq", "1", errc::invalid_argument},
      {"instances", "2", errc::invalid_argument},
  }));
  CAPTURE(name, value);
  repo.write("models/bard/1/model.json",
             "{" + std::string{name == "model" ? "" : "\"model\": \"../hf\",\n"} + "\"" + name +
                 "\": " + value + "}");
  const auto loaded = repo.check();
  const auto* d = about(loaded, "models.bard." + name);
  REQUIRE(d != nullptr);
  CAPTURE(d->message);
  CHECK(d->code == code);
  CHECK(d->file == repo.at("models/bard/1/model.json").string());
  CHECK(d->line == (name == "model" ? 1U : 2U));
}

TEST_CASE("what two files say must agree") {
  test_repository repo;
  repo.write("models/bard/1/model.json", "{\"model\": \"../hf\",\n\"tensor_parallel_size\": 1}");
  repo.write("cluster.json",
             R"({"model_repository": "models", "models": {"bard": {"tensor_parallel": 1}}})");
  CHECK(repo.check().config);
  repo.write("cluster.json",
             R"({"model_repository": "models", "models": {"bard": {"tensor_parallel": 2}}})");
  load_options options;
  options.capabilities.max_tensor_parallel_size = 8;
  const auto loaded = repo.check(options);
  const auto* d = about(loaded, "models.bard.tensor_parallel_size");
  REQUIRE(d != nullptr);
  CHECK(d->code == errc::conflict);
  CHECK(contains(d->message, "2 here, but 1 at"));
  CHECK(contains(d->message, "model.json:2"));
  // The command line decides between the two files.
  options.set = {"models.bard.tensor_parallel=4"};
  CHECK(*repo.load(options).models.at(0).engine.tensor_parallel_size == 4);
}

TEST_CASE("arguments that contradict each other are named with both values") {
  test_repository repo;
  repo.write("models/bard/1/model.json",
             R"({"model": "../hf", "max_num_batched_tokens": 8, "max_num_seqs": 9})");
  auto loaded = repo.check();
  const auto* d = about(loaded, "models.bard.max_num_batched_tokens");
  REQUIRE(d != nullptr);
  CHECK(d->code == errc::conflict);
  CHECK(contains(d->message, "max_num_seqs 9"));
  // A default gives way instead.
  const auto m = load_bard(repo, R"({"model": "../hf", "max_num_batched_tokens": 8})");
  CHECK(*m.engine.max_num_seqs == 8);
  repo.write(
      "models/bard/1/model.json",
      R"({"model": "../hf", "max_num_batched_tokens": 99, "enable_chunked_prefill": false})");
  loaded = repo.check();
  REQUIRE(about(loaded, "models.bard.max_num_batched_tokens") != nullptr);
}

TEST_CASE("the highest numeric version is served, and names are unique") {
  test_repository repo;
  repo.write("models/bard/10/model.json", R"({"model": "../hf", "seed": 10})");
  repo.write("models/bard/9/model.json", "{");
  repo.write("models/bard/notes/model.json", "{");
  repo.write("models/bard/config.pbtxt", "backend: \"vllm\"");
  CHECK(repo.load().models.at(0).version == 10);
  repo.add_model("twin", R"({"model": "../hf", "served_model_name": "bard"})");
  const auto twins = repo.check();
  REQUIRE(about(twins, "models.twin.served_model_name") != nullptr);
  CHECK(about(twins, "models.twin.served_model_name")->code == errc::conflict);
  repo.write("cluster.json", R"({"model_repository": "models", "models": {"twin": {}}})");
  CHECK(repo.load().models.size() == 1);
  repo.write("models/twin/2/other", "");
  CHECK(repo.check().diagnostics.at(0).code == errc::not_found);
}

TEST_CASE("generation parameters follow vLLM's precedence") {
  test_repository repo;
  const auto file = repo.write("models/bard/hf/generation_config.json", R"({
    "temperature": 0.6, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.1,
    "max_new_tokens": 100000, "eos_token_id": [5, 6], "do_sample": true, "custom": {}})");
  const auto base = load_bard(repo, R"({"model": "../hf"})");
  CHECK(*base.generation.temperature == 0.6);
  CHECK(base.generation.temperature.from == origin{origin_kind::model_file, file.string(), 2, ""});
  CHECK(*base.generation.top_k == 20);
  CHECK(*base.generation.eos_token_ids == std::vector<token_id>{5, 6});
  CHECK(**base.generation.max_tokens == 1024);
  const auto warned = repo.check();
  REQUIRE(about(warned, "repetition_penalty") != nullptr);
  CHECK(about(warned, "repetition_penalty")->severity == severity::warning);

  const auto over = load_bard(repo, R"({"model": "../hf", "override_generation_config":
    {"temperature": 0, "top_k": -1, "max_new_tokens": 7}})");
  CHECK(*over.generation.temperature == 0);
  CHECK(*over.generation.top_k == 0);
  CHECK(*over.generation.top_p == 0.9);
  CHECK(**over.generation.max_tokens == 7);

  const auto vllm = load_bard(repo, R"({"model": "../hf", "generation_config": "vllm"})");
  CHECK(*vllm.generation.temperature == 1.0);
  CHECK(*vllm.generation.top_k == 0);
  CHECK(*vllm.generation.eos_token_ids == std::vector<token_id>{2});
  CHECK_FALSE(*vllm.generation.max_tokens);

  repo.write("models/bard/1/model.json", R"({"model": "../hf", "override_generation_config":
    {"repetition_penalty": 1.2, "tempertaure": 1, "top_p": 0}})");
  const auto bad = repo.check();
  const std::string path = "models.bard.override_generation_config.";
  CHECK(about(bad, path + "repetition_penalty")->code == errc::unsupported);
  CHECK(contains(about(bad, path + "tempertaure")->message, "did you mean 'temperature'"));
  CHECK(about(bad, path + "top_p")->code == errc::invalid_argument);
}

TEST_CASE("a measured value fills a gap and never overwrites a person's") {
  engine_args args;
  const auto measured = with_measured(args, 256);
  CHECK(**measured.max_num_batched_tokens == 256);
  CHECK(measured.max_num_batched_tokens.from.kind == origin_kind::measured);
  CHECK(**with_measured(args, 3).max_num_batched_tokens == *args.max_num_seqs);
  args.max_num_batched_tokens = {100, {origin_kind::user_file, "m", 1, ""}};
  CHECK(with_measured(args, 256).max_num_batched_tokens == args.max_num_batched_tokens);
}
