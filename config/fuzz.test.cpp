#include "config/test_mutation.hpp"
#include "config/test_repository.hpp"
#include "troupe/config/explain.hpp"

using namespace troupe;
using namespace troupe::config;

namespace {

constexpr std::string_view cluster_text = R"({
  "cluster": "globe", "model_repository": "models", "log_level": "warn",
  "nodes": [
    {"name": "front", "address": "10.0.0.1:7600", "devices": ["cpu"], "router": true,
     "edges": {"http": {"host": "::1", "port": 8000, "idle_timeout_s": 1.5}, "metrics": 8002}}
  ],
  "models": {"bard": {"instances": 2, "tensor_parallel": 1, "max_num_seqs": 16}},
  "routing": {"policy": "round_robin"}, "cpu": {"threads": 2},
  "limits": {"slow_reader_timeout_s": 10, "max_queued_requests": 100},
  "model_control": {"mode": "none", "load_models": [], "poll_interval_s": 3}
})";

constexpr std::string_view model_text = R"({
  "model": "../hf", "dtype": "bfloat16", "max_model_len": 512, "block_size": 16,
  "served_model_name": ["bard", "will"], "enable_prefix_caching": true, "seed": 1,
  "gpu_memory_utilization": 0.9, "quantization": null, "pipeline_parallel_size": 1,
  "override_generation_config": {"temperature": 0.7, "top_k": 20, "eos_token_id": [1, 2]}
})";

constexpr std::string_view pieces[] = {"{",
                                       "}",
                                       "[",
                                       "]",
                                       ",",
                                       ":",
                                       "\"",
                                       "null",
                                       "true",
                                       "-1",
                                       "1e999",
                                       "1e3",
                                       "0.5",
                                       "\n",
                                       "\\u0000",
                                       "\\ud800",
                                       "\xff",
                                       "NaN",
                                       "//",
                                       "\"\"",
                                       "[[[[",
                                       "{\"a\":",
                                       "99999999999999999999",
                                       "-0",
                                       "\"model\"",
                                       "\"nodes\"",
                                       "\"..\"",
                                       "\t",
                                       "#"};

/// Whatever the text, the answer is a configuration or errors that say where.
/// Returns whether it was accepted.
bool check_outcome(const test_repository& repo, const std::string& text) {
  const auto loaded = repo.check();
  CAPTURE(text);
  REQUIRE(loaded.config.has_value() == !has_errors(loaded.diagnostics));
  for (const auto& d : loaded.diagnostics) {
    CAPTURE(to_string(d));
    REQUIRE_FALSE(d.file.empty());
    REQUIRE_FALSE(d.message.empty());
    REQUIRE((d.line >= 1 || d.severity == severity::warning || d.code == errc::not_found));
    REQUIRE(d.code != errc::internal);
  }
  if (loaded.config)
    REQUIRE_FALSE(render(explain(*loaded.config), loaded.diagnostics).empty());
  return loaded.config.has_value();
}

} // namespace

TEST_CASE("no mutation of a cluster file crashes, and every failure says where") {
  test_repository repo;
  repo.write("models/bard/1/model.json", std::string{model_text});
  repo.write("cluster.json", std::string{cluster_text});
  REQUIRE(check_outcome(repo, "unchanged"));
  splitmix64 random{20261122};
  int accepted = 0;
  for (int i = 0; i < 4000; ++i) {
    const auto text = mutate(std::string{cluster_text}, pieces, random);
    repo.write("cluster.json", text);
    accepted += check_outcome(repo, text) ? 1 : 0;
  }
  // Edits of white space and of free values leave some files right; a loader that accepts or
  // refuses everything is not tested by this loop.
  CHECK(accepted > 20);
  CHECK(accepted < 2000);
}

TEST_CASE("no mutation of a model.json crashes, and every failure says where") {
  test_repository repo;
  splitmix64 random{7};
  int accepted = 0;
  for (int i = 0; i < 4000; ++i) {
    const auto text = mutate(std::string{model_text}, pieces, random);
    repo.write("models/bard/1/model.json", text);
    accepted += check_outcome(repo, text) ? 1 : 0;
  }
  CHECK(accepted > 20);
  CHECK(accepted < 2000);
}

TEST_CASE("no mutation of the model's own files crashes") {
  test_repository repo;
  const std::string config = R"({"max_position_embeddings": 1024, "eos_token_id": [2, 3],
    "text_config": {"max_position_embeddings": 99}})";
  const std::string generation = R"({"temperature": 0.6, "top_k": 20, "eos_token_id": 7,
    "repetition_penalty": 1.0, "max_new_tokens": 5})";
  splitmix64 random{11};
  for (int i = 0; i < 1500; ++i) {
    repo.write("models/bard/hf/config.json", mutate(config, pieces, random));
    repo.write("models/bard/hf/generation_config.json", mutate(generation, pieces, random));
    check_outcome(repo, "model files");
  }
}

TEST_CASE("no override crashes") {
  test_repository repo;
  splitmix64 random{13};
  for (int i = 0; i < 2000; ++i) {
    load_options options;
    options.set = {mutate("models.bard.max_num_seqs=8", pieces, random),
                   mutate("nodes.0.name=a", pieces, random)};
    options.environment = {
        {mutate("TROUPE_SET__edges__http__port", pieces, random), mutate("80", pieces, random)}};
    const auto loaded = repo.check(options);
    REQUIRE(loaded.config.has_value() == !has_errors(loaded.diagnostics));
  }
}
