#include "troupe/config/triton.hpp"

#include "config/test_repository.hpp"
#include "config/triton_message.hpp"
#include "troupe/config/explain.hpp"

using namespace troupe;
using namespace troupe::config;

namespace {

constexpr auto pbtxt = "models/bard/config.pbtxt";

/// The model bard with this config.pbtxt, which must be right.
triton_model completed(const std::string& text, load_options options = {}) {
  test_repository repo;
  repo.write(pbtxt, text);
  options.gpus = 2;
  return repo.load(options).models.front().triton;
}

/// The findings about bard with this config.pbtxt.
load_result refused(const std::string& text, load_options options = {}) {
  test_repository repo;
  repo.write(pbtxt, text);
  options.gpus = options.gpus.value_or(0);
  return repo.check(options);
}

std::string all_of(const load_result& loaded) {
  std::string text;
  for (const auto& d : loaded.diagnostics)
    text += to_string(d) + "\n";
  return text;
}

/// "user 3", "auto", "default": who said a field of the completed configuration.
std::string who(const origin& from) {
  switch (from.kind) {
  case origin_kind::user_file:
    return "user " + std::to_string(from.line);
  case origin_kind::auto_completion:
    return "auto";
  case origin_kind::default_value:
    return "default";
  default:
    return "other";
  }
}

std::string origin_of(const triton_model& model, const std::string& path) {
  const auto found = model.origins.find(path);
  return found == model.origins.end() ? "nobody" : who(found->second);
}

} // namespace

TEST_CASE("a model without config.pbtxt is completed from Triton's contract") {
  test_repository repo;
  const auto model = repo.load().models.front().triton;
  CHECK(model.name == "bard");
  CHECK(model.versions == std::vector<std::uint64_t>{1});
  CHECK(*model.backend == "troupe");
  CHECK(who(model.backend.from) == "auto");
  CHECK(*model.decoupled);
  CHECK(who(model.decoupled.from) == "auto");
  CHECK(*model.max_batch_size == 0);
  struct tensor {
    const char* name;
    tensor_type type;
    std::int64_t dim;
    bool optional;
  };
  const tensor inputs[] = {
      {"text_input", tensor_type::string, 1, false},
      {"image", tensor_type::string, -1, true},
      {"stream", tensor_type::boolean, 1, true},
      {"sampling_parameters", tensor_type::string, 1, true},
      {"exclude_input_in_output", tensor_type::boolean, 1, true},
      {"return_finish_reason", tensor_type::boolean, 1, true},
      {"return_cumulative_logprob", tensor_type::boolean, 1, true},
      {"return_logprobs", tensor_type::boolean, 1, true},
      {"return_num_input_tokens", tensor_type::boolean, 1, true},
      {"return_num_output_tokens", tensor_type::boolean, 1, true},
      {"embedding_request", tensor_type::string, 1, true},
  };
  REQUIRE(model.inputs.size() == std::size(inputs));
  for (std::size_t i = 0; i < std::size(inputs); ++i) {
    CAPTURE(inputs[i].name);
    CHECK(model.inputs[i].name == inputs[i].name);
    CHECK(*model.inputs[i].type == inputs[i].type);
    CHECK(*model.inputs[i].dims == std::vector{inputs[i].dim});
    CHECK(*model.inputs[i].optional == inputs[i].optional);
    CHECK(who(model.inputs[i].from) == "auto");
  }
  const tensor outputs[] = {
      {"text_output", tensor_type::string, -1, false},
      {"finish_reason", tensor_type::string, -1, false},
      {"cumulative_logprob", tensor_type::fp32, -1, false},
      {"logprobs", tensor_type::string, -1, false},
      {"num_input_tokens", tensor_type::uint32, 1, false},
      {"num_output_tokens", tensor_type::uint32, -1, false},
  };
  REQUIRE(model.outputs.size() == std::size(outputs));
  for (std::size_t i = 0; i < std::size(outputs); ++i) {
    CAPTURE(outputs[i].name);
    CHECK(model.outputs[i].name == outputs[i].name);
    CHECK(*model.outputs[i].type == outputs[i].type);
    CHECK(*model.outputs[i].dims == std::vector{outputs[i].dim});
  }
  REQUIRE(model.instance_groups.size() == 1);
  CHECK(*model.instance_groups[0].name == "bard");
  CHECK(*model.instance_groups[0].kind == instance_kind::model);
  CHECK(*model.instance_groups[0].count == 1);
}

TEST_CASE("the sample of the vLLM backend is read unchanged") {
  const auto model =
      completed("# a comment\n"
                "backend: \"vllm\"\n\n"
                "instance_group [\n  {\n    count: 1\n    kind: KIND_MODEL\n  }\n]\n");
  CHECK(*model.backend == "vllm");
  CHECK(who(model.backend.from) == "user 2");
  CHECK(who(model.instance_groups[0].count.from) == "user 6");
  CHECK(*model.instance_groups[0].name == "bard_0");
  CHECK(who(model.instance_groups[0].name.from) == "default");
}

TEST_CASE("what the user wrote wins, field by field, and says where it stands") {
  struct row {
    const char* path;
    /// The line that sets the field; empty: the user says nothing.
    const char* text;
    const char* origin;
    /// A part of the completed configuration in text format.
    const char* expected;
  };
  const row table[] = {
      {"name", "", "default", "name: \"bard\""},
      {"name", "name: \"bard\"", "user 1", "name: \"bard\""},
      {"backend", "", "auto", "backend: \"troupe\""},
      {"backend", "backend: \"vllm\"", "user 1", "backend: \"vllm\""},
      {"platform", "", "nobody", "name"},
      {"platform", "platform: \"llm\"", "user 1", "platform: \"llm\""},
      {"max_batch_size", "", "auto", "name"},
      {"max_batch_size", "max_batch_size: 0", "user 1", "name"},
      {"model_transaction_policy.decoupled", "", "auto", "decoupled: true"},
      {"model_transaction_policy.decoupled", "model_transaction_policy { decoupled: true }",
       "user 1", "decoupled: true"},
      {"model_transaction_policy.decoupled", "model_transaction_policy { }", "auto",
       "decoupled: true"},
      {"input[0].data_type", "", "auto", "data_type: TYPE_STRING"},
      {"input[0].data_type", "input { name: \"stream\" data_type: TYPE_BOOL dims: -1 }", "user 1",
       "name: \"stream\"\n  data_type: TYPE_BOOL\n  dims: -1\n  optional: true"},
      {"input[0].dims", "input { name: \"stream\" data_type: TYPE_BOOL dims: [-1] }", "user 1",
       "dims: -1"},
      {"input[0].optional", "input { name: \"stream\" data_type: TYPE_BOOL dims: [1] }", "auto",
       "optional: true"},
      {"input[0].optional",
       "input { name: \"stream\" data_type: TYPE_BOOL dims: [1] optional: false }", "user 1",
       "name: \"stream\"\n  data_type: TYPE_BOOL\n  dims: 1\n}"},
      {"input[0].data_type", "input { name: \"text_input\" }", "auto", "data_type: TYPE_STRING"},
      {"output[0].dims", "", "auto", "dims: -1"},
      {"output[0].dims", "output { name: \"text_output\" data_type: TYPE_STRING dims: [1] }",
       "user 1", "name: \"text_output\"\n  data_type: TYPE_STRING\n  dims: 1\n"},
      {"instance_group[0].count", "", "default", "count: 1"},
      {"instance_group[0].count", "instance_group { count: 2 kind: KIND_CPU }", "user 1",
       "count: 2\n  kind: KIND_CPU"},
      {"instance_group[0].kind", "", "default", "kind: KIND_MODEL"},
      {"instance_group[0].kind", "instance_group { kind: KIND_CPU }", "user 1", "kind: KIND_CPU"},
      {"instance_group[0].name", "instance_group { name: \"mine\" kind: KIND_CPU }", "user 1",
       "name: \"mine\""},
      {"instance_group[0].name", "instance_group { kind: KIND_CPU }", "default",
       "name: \"bard_0\""},
      {"instance_group[0].gpus", "instance_group { kind: KIND_GPU gpus: [0, 1] }", "user 1",
       "gpus: 0\n  gpus: 1"},
      {"version_policy", "", "default", "num_versions: 1"},
      {"version_policy.latest.num_versions", "", "default", "num_versions: 1"},
      {"version_policy.latest.num_versions", "version_policy { latest { num_versions: 3 } }",
       "user 1", "num_versions: 3"},
      {"version_policy.latest.num_versions", "version_policy { latest { } }", "default",
       "num_versions: 1"},
      {"version_policy.all", "version_policy { all { } }", "user 1", "all {"},
      {"parameters[\"REPORT_CUSTOM_METRICS\"]",
       "parameters { key: \"REPORT_CUSTOM_METRICS\" value { string_value: \"true\" } }", "user 1",
       "key: \"REPORT_CUSTOM_METRICS\""},
      {"metric_tags[\"team\"]", "metric_tags { key: \"team\" value: \"a\" }", "user 1",
       "key: \"team\""},
      {"dynamic_batching", "dynamic_batching { }", "user 1", "dynamic_batching {"},
      {"dynamic_batching", "", "nobody", "name"},
      {"response_cache.enable", "response_cache { enable: false }", "user 1", "response_cache {"},
      {"optimization", "optimization { priority: PRIORITY_MAX }", "user 1", "PRIORITY_MAX"},
      {"default_model_filename", "default_model_filename: \"model.json\"", "user 1",
       "default_model_filename: \"model.json\""},
      {"sequence_batching.max_sequence_idle_microseconds",
       "sequence_batching { max_sequence_idle_microseconds: 5 }", "user 1",
       "max_sequence_idle_microseconds: 5"},
  };
  for (const auto& r : table) {
    CAPTURE(r.path, r.text);
    const auto model = completed(r.text);
    CHECK(origin_of(model, r.path) == r.origin);
    const auto text = model.to_text();
    CAPTURE(text);
    CHECK(contains(text, r.expected));
  }
}

TEST_CASE("where the user's value cannot win, loading names field, values and place") {
  struct row {
    const char* text;
    const char* path;
    std::vector<const char*> parts;
  };
  const row table[] = {
      {"\nmax_batch_size: 8",
       "max_batch_size",
       {"configuration specified max_batch_size 8, but in auto-complete-config function for model "
        "'bard' specified max_batch_size 0",
        "config.pbtxt:2:"}},
      {"model_transaction_policy {\n decoupled: false\n}",
       "model_transaction_policy.decoupled",
       {"trying to change decoupled property in auto-complete-config for model 'bard', which is "
        "already set to 'False'",
        "needs true", "config.pbtxt:2:"}},
      {"input {\n name: \"text_input\"\n data_type: TYPE_INT32\n dims: 1 }",
       "input[0].data_type",
       {"TYPE_INT32", "TYPE_STRING", "text_input", "config.pbtxt:3:"}},
      {"input { name: \"stream\" data_type: TYPE_BOOL\n dims: [2, 3] }",
       "input[0].dims",
       {"[2, 3]", "[1]", "stream", "config.pbtxt:2:"}},
      {"input { name: \"text_input\" data_type: TYPE_STRING dims: 1\n optional: true }",
       "input[0].optional",
       {"true", "false", "config.pbtxt:2:"}},
      {"output { name: \"logprobs\"\n data_type: TYPE_FP32 dims: -1 }",
       "output[0].data_type",
       {"TYPE_FP32", "TYPE_STRING", "config.pbtxt:2:"}},
      {"\n\nname: \"hamlet\"",
       "name",
       {"unexpected directory name 'bard' for model 'hamlet'", "config.pbtxt:3:"}},
      {"runtime: \"model.py\"", "runtime", {"'model.py'", "cannot be honoured"}},
      {"response_cache { enable: true }",
       "response_cache.enable",
       {"decoupled: true", "auto-completion (backend troupe)"}},
  };
  for (const auto& r : table) {
    CAPTURE(r.text);
    const auto loaded = refused(r.text);
    CAPTURE(all_of(loaded));
    REQUIRE_FALSE(loaded.config);
    const auto* found = about(loaded, r.path);
    REQUIRE(found != nullptr);
    for (const auto* part : r.parts)
      CHECK(contains(to_string(*found), part));
  }
}

TEST_CASE("what is wrong in config.pbtxt has a line and a column") {
  struct row {
    const char* text;
    std::uint32_t line;
    std::uint32_t column;
    const char* part;
  };
  const row table[] = {
      {"backend: \"vllm\"\nmax_batchsize: 4\n", 2, 1, "did you mean 'max_batch_size'?"},
      {"input {\n  nam: \"x\"\n}", 2, 3, "unknown field 'nam' of ModelInput"},
      {"input { data_type: TYPE_STRNG }", 1, 20, "did you mean 'TYPE_STRING'?"},
      {"instance_group { kind: KIND_CPUS }", 1, 24, "did you mean 'KIND_CPU'?"},
      {"max_batch_size: 1.5", 1, 17, "integer"},
      {"max_batch_size: 99999999999", 1, 17, "out of range"},
      {"backend \"vllm\"", 1, 9, ":"},
      {"input {", 1, 8, ""},
      {"backend: \"vllm", 1, 0, ""},
      {"backend: \"a\"\nbackend: \"b\"", 2, 1, "specified multiple times"},
      {"parameters { key: \"a\" value { string_value: \"1\" } }\n"
       "parameters { key: \"a\" value { string_value: \"2\" } }",
       2, 1, "is given twice, first at line 1"},
      {"backend: \"\\xff\"", 1, 1, "UTF-8"},
      {"instance_group { count: -1 kind: KIND_CPU }", 1, 18, "from 1 to 1024"},
      {"instance_group { kind: KIND_MODEL gpus: [0] }", 1, 0,
       "has kind KIND_MODEL but specifies one or more GPUs"},
      {"max_batch_size: -1", 1, 1, "must be non-negative value for bard"},
      {"input { name: \"x\" }\ninput { name: \"x\" }", 2, 9, "names are unique"},
      {"input { dims: 0 name: \"x\" }", 1, 0, "-1 or at least 1"},
      {"ensemble_scheduling { }", 1, 1, "ensembles are not supported"},
      {"version_policy { specific { versions: [7] } }", 1, 1,
       "at least one version must be available under the version policy of model 'bard'"},
      {"version_policy { latest { num_versions: 0 } }", 1, 27, "must be at least 1"},
      {"backend: \"onnxruntime\"", 1, 1, "unable to find backend library for backend"},
      {"model_repository_agents { }", 1, 1, "not supported"},
      {"batch_input { }", 1, 1, "makes its batches itself"},
  };
  for (const auto& r : table) {
    CAPTURE(r.text);
    const auto loaded = refused(r.text);
    CAPTURE(all_of(loaded));
    REQUIRE_FALSE(loaded.config);
    const auto& all = loaded.diagnostics;
    const auto found = std::find_if(all.begin(), all.end(), [&](const auto& d) {
      return d.severity == severity::error && contains(d.message, r.part);
    });
    REQUIRE(found != all.end());
    CHECK(contains(found->file, "config.pbtxt"));
    CHECK(found->line == r.line);
    if (r.column > 0)
      CHECK(found->column == r.column);
  }
}

TEST_CASE("versions are chosen by the policy, and only integers from 1 count") {
  test_repository repo;
  for (const auto* version : {"2", "10", "0", "03", "x1"})
    repo.write(std::string{"models/bard/"} + version + "/model.json", R"({"model": "../hf"})");
  struct row {
    const char* text;
    std::vector<std::uint64_t> versions;
  };
  const row table[] = {
      {"", {10}},
      {"version_policy { latest { num_versions: 2 } }", {2, 10}},
      {"version_policy { latest { num_versions: 9 } }", {1, 2, 10}},
      {"version_policy { all { } }", {1, 2, 10}},
      {"version_policy { specific { versions: [2, 1] } }", {1, 2}},
      {"version_policy { specific { versions: [1, 7] } }", {1}},
  };
  for (const auto& r : table) {
    CAPTURE(r.text);
    repo.write(pbtxt, r.text);
    const auto loaded = repo.check();
    CAPTURE(all_of(loaded));
    REQUIRE(loaded.config);
    CHECK(loaded.config->models.front().triton.versions == r.versions);
    CHECK(loaded.config->models.front().version == r.versions.back());
    CHECK(loaded.config->older_versions.size() == r.versions.size() - 1);
    CHECK(contains(all_of(loaded), "'0' is no version"));
    CHECK(contains(all_of(loaded), "'03' is no version"));
  }
}

TEST_CASE("instance groups make replicas and devices") {
  struct row {
    const char* text;
    std::uint32_t instances;
    std::vector<std::string> devices;
  };
  const row table[] = {
      {"instance_group { count: 3 kind: KIND_MODEL }", 3, {}},
      {"instance_group { count: 2 kind: KIND_CPU }", 2, {"cpu", "cpu"}},
      {"instance_group { kind: KIND_GPU }", 2, {"cuda:0", "cuda:1"}},
      {"instance_group { count: 2 kind: KIND_GPU gpus: [1] }", 2, {"cuda:1", "cuda:1"}},
      {"instance_group [{ kind: KIND_GPU gpus: [0] }, { kind: KIND_CPU }]", 2, {"cuda:0", "cpu"}},
  };
  for (const auto& r : table) {
    CAPTURE(r.text);
    test_repository repo;
    repo.write(pbtxt, r.text);
    load_options options;
    options.gpus = 2;
    const auto model = repo.load(options).models.front();
    CHECK(*model.instances == r.instances);
    std::vector<std::string> devices;
    for (const auto& d : *model.devices)
      devices.push_back(to_string(d));
    CHECK(devices == r.devices);
  }
  CHECK(contains(all_of(refused("instance_group { kind: KIND_GPU }")), "there is no GPU here"));
  load_options two;
  two.gpus = 2;
  CHECK(contains(all_of(refused("instance_group { kind: KIND_GPU gpus: [5] }", two)),
                 "this machine has 2"));
  CHECK(contains(all_of(refused("instance_group [{ kind: KIND_CPU }, { kind: KIND_MODEL }]")),
                 "give all the same kind"));
}

TEST_CASE("a tensor-parallel model cannot be on one GPU") {
  test_repository repo;
  repo.write(pbtxt, "instance_group {\n kind: KIND_GPU }");
  repo.write("models/bard/1/model.json", R"({"model": "../hf", "tensor_parallel_size": 2})");
  load_options options;
  options.gpus = 2;
  options.capabilities.max_tensor_parallel_size = 2;
  const auto loaded = repo.check(options);
  const auto* found = about(loaded, "instance_group[0].kind");
  REQUIRE(found != nullptr);
  CHECK(contains(found->message, "please specify KIND_MODEL"));
  CHECK(found->line == 2);
}

TEST_CASE("config.pbtxt and the cluster file must agree") {
  test_repository repo;
  repo.write(pbtxt, "instance_group { count: 3 kind: KIND_MODEL }\n"
                    "dynamic_batching { default_queue_policy { max_queue_size: 7 } }");
  CHECK(*repo.load().models.front().max_queued_requests == 7);
  repo.write("cluster.json",
             R"({"model_repository": "models", "models": {"bard": {"instances": 2}}})");
  const auto disagreeing = repo.check();
  const auto* found = about(disagreeing, "instance_group");
  REQUIRE(found != nullptr);
  CHECK(contains(found->message, "makes 3 instances, but models.bard.instances has 2 at"));
  repo.write("cluster.json",
             R"({"model_repository": "models", "models": {"bard": {"instances": 3}}})");
  load_options options;
  options.set = {"models.bard.max_queued_requests=9"};
  const auto model = repo.load(options).models.front();
  CHECK(*model.instances == 3);
  CHECK(*model.max_queued_requests == 9);
  options.set = {"models.bard.instances=5"};
  CHECK(*repo.load(options).models.front().instances == 5);
}

TEST_CASE("the message, JSON and text say the same") {
  const auto model = completed("backend: \"vllm\"\nparameters { key: \"b\" value { string_value: "
                               "\"2\" } } parameters { key: \"a\" value { string_value: \"1\" } }\n"
                               "dynamic_batching { default_queue_policy { "
                               "default_timeout_microseconds: 18446744073709551615 } }");
  const auto message = to_message(model);
  CHECK(message.input_size() == 11);
  CHECK(message.parameters().at("a").string_value() == "1");
  const auto json = model.to_json();
  CAPTURE(json);
  CHECK(contains(json, R"("name":"bard","platform":"","backend":"vllm","runtime":"")"));
  CHECK(contains(json, R"("default_timeout_microseconds":18446744073709551615)"));
  CHECK(contains(json, R"("version_policy":{"latest":{"num_versions":1}})"));
  CHECK(contains(json, R"({"name":"text_input","data_type":"TYPE_STRING","format":"FORMAT_NONE",)"
                       R"("dims":[1],"is_shape_tensor":false)"));
  CHECK(contains(json, R"("parameters":{"a":{"string_value":"1"},"b":{"string_value":"2"}})"));
  CHECK(contains(json, R"("default_model_filename":"")"));
  CHECK_FALSE(contains(json, "sequence_batching"));
  CHECK(*model.parameters.at("b") == "2");
  CHECK(model.parameter("none").empty());
  // What was answered can be written back, and is then the user's.
  const auto again = completed(model.to_text());
  CHECK(again.message == model.message);
}

TEST_CASE("check shows the completed configuration as a difference") {
  test_repository repo;
  const auto file = repo.write(pbtxt, "backend: \"vllm\"\ninput {\n  name: \"stream\"\n"
                                      "  data_type: TYPE_BOOL\n  dims: [1]\n}\n"
                                      "optimization { priority: PRIORITY_MAX }");
  const auto loaded = repo.check();
  REQUIRE(loaded.config);
  const auto text = render(explain(*loaded.config), loaded.diagnostics);
  CAPTURE(text);
  const auto line = [&](const std::string& begin, const std::string& end) {
    const auto at = text.find("\n" + begin);
    const auto stop = at == std::string::npos ? at : text.find('\n', at + 1);
    return at != std::string::npos && contains(text.substr(at, stop - at), end);
  };
  CHECK(contains(text, "Completed configuration of bard (" + file.string() + ")"));
  CHECK(line("  backend: \"vllm\"", file.string() + ":1"));
  CHECK(line("    name: \"stream\"", file.string() + ":3"));
  CHECK(line("+   optional: true", "auto-completion (backend vllm)"));
  CHECK(line("+ input { name: \"text_input\" data_type: TYPE_STRING dims: 1 }",
             "auto-completion (backend vllm)"));
  CHECK(line("+ max_batch_size: 0", "auto-completion (backend vllm)"));
  CHECK(line("+ version_policy { latest { num_versions: 1 } }", "default"));
  CHECK(contains(text, "models.bard.optimization"));
  CHECK(contains(text, "executor's choice"));
}

TEST_CASE("a backend of people's own is kept by its name") {
  test_repository repo;
  repo.write("models/echo/1/nothing", "");
  repo.write("models/echo/config.pbtxt",
             "backend: \"identity\"\nmax_batch_size: 4\n"
             "input { name: \"IN\" data_type: TYPE_FP16 dims: [2, -1] }\n"
             "output { name: \"OUT\" data_type: TYPE_FP16 dims: [2, -1] }");
  CHECK(contains(all_of(repo.check()), "unable to find backend library for backend 'identity'"));
  load_options options;
  options.capabilities.backends = {"identity"};
  const auto cluster = repo.load(options);
  CHECK(cluster.models.size() == 1);
  REQUIRE(cluster.custom_models.size() == 1);
  const auto& echo = cluster.custom_models.front();
  CHECK(*echo.backend == "identity");
  CHECK(*echo.max_batch_size == 4);
  CHECK_FALSE(*echo.decoupled);
  CHECK(*echo.find_input("IN")->dims == std::vector<std::int64_t>{2, -1});
  CHECK(echo.find_output("IN") == nullptr);
  CHECK(*echo.instance_groups.front().kind == instance_kind::cpu);
  repo.write("models/echo/config.pbtxt", "backend: \"identity\"\ninput { name: \"IN\" }");
  const auto text = all_of(repo.check(options));
  CHECK(contains(text, "model input 'IN' must specify 'data_type'"));
  CHECK(contains(text, "model input 'IN' must specify 'dims'"));
}

TEST_CASE("a model without model.json needs a backend") {
  test_repository repo;
  repo.write("models/odd/1/weights", "");
  CHECK(contains(all_of(repo.check()), "Could not determine backend for model 'odd'"));
  repo.write("models/odd/config.pbtxt", "backend: \"vllm\"");
  const auto text = all_of(repo.check());
  CHECK(contains(text, "model.json"));
  CHECK(contains(text, "there is no such file"));
}

TEST_CASE("the directory's name may name the backend") {
  test_repository repo;
  repo.add_model("tiny.vllm", R"({"model": "../hf"})");
  const auto cluster = repo.load();
  CHECK(*find_model(cluster, "tiny.vllm")->triton.backend == "vllm");
}

TEST_CASE("a directory stands for a cluster file") {
  test_repository repo;
  load_options options;
  options.hardware_threads = 4;
  const auto loaded = check_cluster(repo.at("models"), options);
  CAPTURE(all_of(loaded));
  REQUIRE(loaded.config);
  CHECK(loaded.config->nodes.size() == 1);
  CHECK(*loaded.config->nodes.front().http->port == 8000);
  CHECK(loaded.config->models.front().name == "bard");
  CHECK(loaded.config->model_repository.from.kind == origin_kind::command_line);
  CHECK_FALSE(check_cluster(repo.at("models/bard/hf"), options).config);
}

TEST_CASE("types have Triton's names and sizes") {
  for (int i = 1; i <= 14; ++i) {
    const auto type = static_cast<tensor_type>(i);
    CHECK(config_name(type) == inference::DataType_Name(static_cast<inference::DataType>(i)));
    CHECK(type_of_wire_name(wire_name(type)) == type);
  }
  CHECK(wire_name(tensor_type::string) == "BYTES");
  CHECK(byte_size(tensor_type::bf16) == 2);
  CHECK(byte_size(tensor_type::string) == 0);
  CHECK(type_of_wire_name("TYPE_BOOL") == tensor_type::invalid);
  CHECK(type_of_wire_name("") == tensor_type::invalid);
}

TEST_CASE("an architecture without a recipe is refused with those that have one") {
  test_repository repo;
  repo.write("models/bard/hf/config.json",
             "{\"max_position_embeddings\": 9,\n \"architectures\": [\"LlamaForCausalLMs\"]}");
  load_options options;
  options.capabilities.architectures = {"LlamaForCausalLM", "Qwen3ForCausalLM"};
  const auto loaded = repo.check(options);
  const auto* found = about(loaded, "architectures");
  REQUIRE(found != nullptr);
  CHECK(found->code == errc::unsupported);
  CHECK(found->line == 2);
  CHECK(contains(found->message, "LlamaForCausalLM or Qwen3ForCausalLM"));
  options.capabilities.architectures.push_back("LlamaForCausalLMs");
  CHECK(repo.check(options).config);
}
