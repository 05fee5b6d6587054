#include "config/test_mutation.hpp"
#include "config/test_repository.hpp"
#include "config/triton_message.hpp"
#include "troupe/config/explain.hpp"

using namespace troupe;
using namespace troupe::config;

namespace {

constexpr std::string_view config_text = R"(name: "bard"
backend: "vllm"
max_batch_size: 0
input [ { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] },
        { name: "stream" data_type: TYPE_BOOL dims: [ -1 ] optional: true } ]
output { name: "text_output" data_type: TYPE_STRING dims: -1 }
instance_group { count: 2 kind: KIND_MODEL }
version_policy { specific { versions: [ 1 ] } }
model_transaction_policy { decoupled: true }
dynamic_batching { preferred_batch_size: [ 4, 8 ] priority_levels: 2
  default_queue_policy { timeout_action: REJECT max_queue_size: 9 }
  priority_queue_policy { key: 1 value { max_queue_size: 3 } } }
parameters { key: "REPORT_CUSTOM_METRICS" value { string_value: "true" } }
metric_tags { key: "team" value: "a" }
optimization { cuda { graphs: true graph_spec { batch_size: 1 input { key: "x" value { dim: 1 } } } } }
model_warmup { name: "w" batch_size: 1 inputs { key: "x" value { data_type: TYPE_INT8 dims: 1 zero_data: true } } }
)";

constexpr std::string_view config_json = R"({"name": "bard", "backend": "vllm",
  "input": [{"name": "stream", "data_type": "TYPE_BOOL", "dims": [1], "optional": true}],
  "parameters": {"a": {"string_value": "1"}}, "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
  "version_policy": {"latest": {"num_versions": 1}}, "max_batch_size": 0})";

constexpr std::string_view pieces[] = {"{",      "}",         "[",          "]",
                                       ":",      "\"",        "'",          "#",
                                       "<",      ">",         ",",          ";",
                                       "-1",     "1e99",      "0x7fffffff", "18446744073709551616",
                                       "\n",     "\\377",     "\\0",        "\xff",
                                       "inf",    "nan",       "true",       "input {",
                                       "dims: ", "[a.b/c]:",  "@ref",       "\\u12",
                                       "/",      "TYPE_",     "KIND_GPU",   "all { }",
                                       "{{{{{{", "key: \"",   "value {",    "count",
                                       "\t",     "\"\" \"\"", "versions",   "-0"};

/// Whatever the text, the answer is a completed configuration or errors that say where.
bool check_outcome(const load_result& loaded, const std::string& text) {
  CAPTURE(text);
  REQUIRE(loaded.config.has_value() == !has_errors(loaded.diagnostics));
  for (const auto& d : loaded.diagnostics) {
    CAPTURE(to_string(d));
    REQUIRE_FALSE(d.file.empty());
    REQUIRE_FALSE(d.message.empty());
    REQUIRE(d.code != errc::internal);
    if (d.severity == severity::error && d.file.ends_with("config.pbtxt"))
      REQUIRE((d.line >= 1 || d.code == errc::not_found || d.code == errc::limit_exceeded));
  }
  if (!loaded.config)
    return false;
  REQUIRE_FALSE(render(explain(*loaded.config), loaded.diagnostics).empty());
  const auto& model = loaded.config->models.front().triton;
  REQUIRE_FALSE(model.versions.empty());
  REQUIRE(model.inputs.size() >= 11);
  REQUIRE(model.find_input("text_input") != nullptr);
  REQUIRE(*model.decoupled);
  REQUIRE_FALSE(model.to_json().empty());
  REQUIRE(to_message(model).name() == "bard");
  return true;
}

} // namespace

TEST_CASE("no mutation of config.pbtxt crashes, and every failure says where") {
  test_repository repo;
  repo.write("models/bard/config.pbtxt", std::string{config_text});
  REQUIRE(check_outcome(repo.check(), "unchanged"));
  splitmix64 random{20261126};
  load_options options;
  options.gpus = 0;
  int accepted = 0;
  for (int i = 0; i < 4000; ++i) {
    const auto text = mutate(std::string{config_text}, pieces, random);
    repo.write("models/bard/config.pbtxt", text);
    accepted += check_outcome(repo.check(options), text) ? 1 : 0;
  }
  CHECK(accepted > 50);
  CHECK(accepted < 3000);
}

TEST_CASE("no mutation of a load request's JSON crashes") {
  test_repository repo;
  load_options options;
  options.gpus = 0;
  options.hardware_threads = 4;
  splitmix64 random{42};
  int accepted = 0;
  for (int i = 0; i < 2000; ++i) {
    model_overrides overrides;
    overrides.config =
        i == 0 ? std::string{config_json} : mutate(std::string{config_json}, pieces, random);
    const auto loaded = load_model(repo.at("models"), "bard", options, overrides);
    CAPTURE(*overrides.config);
    REQUIRE((i > 0 || loaded));
    accepted += loaded ? 1 : 0;
    if (!loaded)
      REQUIRE_FALSE(loaded.error().note.empty());
  }
  CHECK(accepted > 5);
  CHECK(accepted < 1500);
}

TEST_CASE("deep, long and repeated texts are refused in bounded time") {
  test_repository repo;
  std::string deep;
  for (int i = 0; i < 100'000; ++i)
    deep += "optimization {";
  std::string many;
  for (int i = 0; i < 20'000; ++i)
    many += "input{name:\"a\"}";
  std::string dims = "input { name: \"stream\" dims: [1";
  for (int i = 0; i < 100'000; ++i)
    dims += ",1";
  const std::string texts[] = {deep, many, dims + "] }", std::string(2U << 20U, '#'),
                               std::string(1000, '\0')};
  for (const auto& text : texts) {
    CAPTURE(text.substr(0, 40));
    repo.write("models/bard/config.pbtxt", text);
    const auto loaded = repo.check();
    CHECK_FALSE(loaded.config);
    CHECK(loaded.diagnostics.size() <= 101);
  }
}

TEST_CASE("what is no regular file is not read") {
  test_repository repo;
  std::filesystem::create_directories(repo.at("models/bard/config.pbtxt"));
  CHECK_FALSE(repo.check().config);
  std::filesystem::remove(repo.at("models/bard/config.pbtxt"));
  std::filesystem::create_symlink("/dev/zero", repo.at("models/bard/config.pbtxt"));
  CHECK_FALSE(repo.check().config);
}
