#include <atomic>
#include <thread>

#include "config/test_repository.hpp"
#include "troupe/base/prng.hpp"

using namespace troupe;
using namespace troupe::config;

namespace {

load_options four_threads() {
  load_options options;
  options.hardware_threads = 4;
  options.gpus = 0;
  return options;
}

} // namespace

TEST_CASE("one model is read again with the section of the cluster file") {
  test_repository repo;
  repo.write("cluster.json",
             R"({"model_repository": "models", "models": {"bard": {"max_num_seqs": 3}}})");
  auto loaded = load_model(repo.at("cluster.json"), "bard", four_threads());
  REQUIRE(loaded);
  REQUIRE(loaded->engines.size() == 1);
  CHECK(*loaded->engines.front().engine.max_num_seqs == 3);
  CHECK(loaded->description.name == "bard");
  CHECK(loaded->fingerprint == *fingerprint_model(repo.at("models"), "bard"));
  repo.write("models/bard/config.pbtxt", "backend: \"vllm\" version_policy { all { } }");
  repo.write("models/bard/2/model.json", R"({"model": "../hf", "seed": 5})");
  loaded = load_model(repo.at("models"), "bard", four_threads());
  REQUIRE(loaded);
  REQUIRE(loaded->engines.size() == 2);
  CHECK(loaded->engines[0].version == 1);
  CHECK(*loaded->engines[1].engine.seed == 5);
  CHECK(*loaded->engines[1].triton.backend == "vllm");
  CHECK(loaded->warnings.empty());
}

TEST_CASE("a model that is not there, or not good, says so") {
  test_repository repo;
  const auto file = repo.at("models");
  for (const auto* name : {"brad", "", "..", ".", "bard/1", "../models/bard", "a\nb"}) {
    CAPTURE(name);
    const auto loaded = load_model(file, name, four_threads());
    REQUIRE_FALSE(loaded);
    CHECK(loaded.error().code == errc::not_found);
    CHECK_FALSE(fingerprint_model(file, name));
  }
  CHECK(contains(load_model(file, "brad", four_threads()).error().note, "did you mean 'bard'?"));
  std::filesystem::create_directories(repo.at("models/empty"));
  CHECK(contains(load_model(file, "empty", four_threads()).error().note,
                 "at least one version must be available"));
  repo.write("models/bard/config.pbtxt", "max_batch_size: 2");
  const auto loaded = load_model(file, "bard", four_threads());
  REQUIRE_FALSE(loaded);
  CHECK(loaded.error().code == errc::conflict);
  CHECK(contains(loaded.error().note, "config.pbtxt:1:1: error: max_batch_size"));
  CHECK_FALSE(load_model(repo.at("nowhere"), "bard", four_threads()));
}

TEST_CASE("a load request's configuration takes the place of the file") {
  test_repository repo;
  repo.write("models/bard/config.pbtxt", "this is not right");
  model_overrides overrides;
  overrides.config = "{\"backend\": \"vllm\",\n \"parameters\": {\"a\": {\"string_value\": "
                     "\"1\"}},\n \"max_batch_size\": 0}";
  const auto loaded = load_model(repo.at("models"), "bard", four_threads(), overrides);
  REQUIRE(loaded);
  const auto& model = loaded->description;
  CHECK(*model.backend == "vllm");
  CHECK(to_string(model.backend.from) == "load request:1");
  CHECK(to_string(model.parameters.at("a").from) == "load request:2");
  CHECK(to_string(model.max_batch_size.from) == "load request:3");
  CHECK(model.decoupled.from.kind == origin_kind::auto_completion);
}

TEST_CASE("a wrong configuration in a load request is refused with its field") {
  test_repository repo;
  struct row {
    const char* json;
    const char* part;
  };
  const row table[] = {
      {R"({"bakend": "vllm"})", "Invalid config override"},
      {R"({"max_batch_size": "many"})", "Invalid config override"},
      {R"({"max_batch_size": 4})", "load request:1: error: max_batch_size"},
      {R"({"model_transaction_policy": {"decoupled": false}})", "already set to 'False'"},
      {R"({"model_transaction_policy": {"decoupled": null}, "name": "x"})",
       "unexpected directory name 'bard' for model 'x'"},
      {R"({"input": [{"name": "stream", "data_type": "TYPE_INT8", "dims": [1]}]})", "TYPE_BOOL"},
      {"[]", "Invalid config override"},
      {"", ""},
      {"{", "load request:1"},
      {R"({"name": "bard", "name": "bard"})", "name"},
  };
  for (const auto& r : table) {
    CAPTURE(r.json);
    model_overrides overrides;
    overrides.config = r.json;
    const auto loaded = load_model(repo.at("models"), "bard", four_threads(), overrides);
    REQUIRE_FALSE(loaded);
    CAPTURE(loaded.error().note);
    CHECK(contains(loaded.error().note, r.part));
  }
}

TEST_CASE("files of a load request take the place of the versions on disk") {
  test_repository repo;
  model_overrides overrides;
  overrides.config = R"({"backend": "vllm"})";
  overrides.files = {
      {"7/model.json", "{\"model\": \"" + repo.at("models/bard/hf").string() + "\"}"}};
  std::filesystem::path directory;
  {
    const auto loaded = load_model(repo.at("models"), "bard", four_threads(), overrides);
    REQUIRE(loaded);
    CHECK(loaded->description.versions == std::vector<std::uint64_t>{7});
    directory = loaded->description.directory;
    CHECK(std::filesystem::exists(directory / "7/model.json"));
  }
  CHECK_FALSE(std::filesystem::exists(directory));
  for (const auto* name : {"../x", "/etc/x", "7", "7/../../x", "7/.hidden", "", "7//", "7/a\nb"}) {
    CAPTURE(name);
    overrides.files = {{name, "x"}};
    const auto loaded = load_model(repo.at("models"), "bard", four_threads(), overrides);
    REQUIRE_FALSE(loaded);
    CHECK(loaded.error().code == errc::invalid_argument);
  }
  overrides.files = {{"7/model.json", "{}"}};
  overrides.config.reset();
  CHECK(contains(load_model(repo.at("models"), "bard", four_threads(), overrides).error().note,
                 "without `config`"));
}

TEST_CASE("a fingerprint changes with every change of a file, and only then") {
  test_repository repo;
  const auto print = [&] { return *fingerprint_model(repo.at("models"), "bard"); };
  const auto first = print();
  CHECK(print() == first);
  repo.write("models/bard/config.pbtxt", "backend: \"vllm\"");
  const auto with_config = print();
  CHECK(with_config != first);
  repo.write("models/bard/config.pbtxt", "backend: \"troupe\"");
  CHECK(print() != with_config);
  std::filesystem::remove(repo.at("models/bard/config.pbtxt"));
  CHECK(print() == first);
  std::filesystem::create_directories(repo.at("models/bard/2"));
  CHECK(print() != first);
}

TEST_CASE("a repository is listed without reading it") {
  test_repository repo;
  repo.write("models/bard/config.pbtxt", "not right");
  repo.write("models/bard/3/model.json", "not right");
  repo.add_model("ariel", "{}");
  const auto listed = list_repository(repo.at("models"));
  REQUIRE(listed);
  REQUIRE(listed->size() == 2);
  CHECK(listed->at(0).name == "ariel");
  CHECK(listed->at(1).versions == std::vector<std::uint64_t>{1, 3});
  CHECK_FALSE(list_repository(repo.at("nowhere")));
}

TEST_CASE("a start reads only the models that model control begins with") {
  test_repository repo;
  repo.add_model("broken", "{");
  load_options options;
  options.as_started = true;
  options.set = {R"(model_control={"mode": "explicit", "load_models": ["bard"]})"};
  CHECK(repo.load(options).models.size() == 1);
  options.set.emplace_back("model_control.load_models=[]");
  CHECK(repo.load(options).models.empty());
  options.as_started = false;
  CHECK_FALSE(repo.check(options).config); // `check` reads all.
}

TEST_CASE("model_control is read, and what cannot be is told") {
  test_repository repo;
  load_options options;
  options.set = {R"(model_control={"mode": "poll", "poll_interval_s": 2.5})"};
  const auto cluster = repo.load(options);
  CHECK(*cluster.model_control.mode == control_mode::poll);
  CHECK(*cluster.model_control.poll_interval == std::chrono::milliseconds{2500});
  CHECK(starts_with(cluster.model_control, "bard"));
  struct row {
    const char* set;
    const char* complaint;
  };
  const row rows[] = {
      {R"(model_control={"mode": "explict"})", "did you mean 'explicit'"},
      {R"(model_control={"load_models": ["bard"]})", "explicit"},
      {R"(model_control={"mode": "explicit", "load_models": "bard"})", "list"},
      {R"(model_control={"mode": "explicit", "load_models": [7]})", "name"},
      {R"(model_control={"mode": "explicit", "load_models": ["brad"]})", "no such model"},
      {R"(model_control={"mode": "poll", "poll_interval_s": 0})", "0.001"},
      {R"(model_control={"mod": "poll"})", "did you mean 'mode'"},
      {R"(model_control="poll")", "object"},
  };
  for (const auto& r : rows) {
    CAPTURE(r.set);
    options.set = {r.set};
    const auto checked = repo.check(options);
    CHECK_FALSE(checked.config);
    CHECK(std::any_of(checked.diagnostics.begin(), checked.diagnostics.end(),
                      [&](const auto& d) { return contains(to_string(d), r.complaint); }));
  }
}

TEST_CASE("a repository that changes while it is read gives a model or a clean error") {
  test_repository repo;
  std::atomic<bool> stop{false};
  std::thread writer{[&] {
    splitmix64 random{5};
    for (int i = 0; !stop; ++i) {
      const auto which = random.below(4);
      std::error_code ec;
      if (which == 0)
        repo.write("models/bard/config.pbtxt", i % 2 == 0 ? "backend: \"vllm\"" : "");
      else if (which == 1)
        std::filesystem::remove(repo.at("models/bard/config.pbtxt"), ec);
      else if (which == 2)
        repo.write("models/bard/2/model.json", R"({"model": "../hf"})");
      else
        std::filesystem::remove_all(repo.at("models/bard/2"), ec);
    }
  }};
  int good = 0;
  int changed = 0;
  for (int i = 0; i < 20'000 && (good == 0 || changed == 0 || i < 300); ++i) {
    const auto loaded = load_model(repo.at("models"), "bard", four_threads());
    if (loaded) {
      ++good;
      CHECK(loaded->engines.size() == loaded->description.versions.size());
      continue;
    }
    CHECK_FALSE(loaded.error().note.empty());
    CHECK(loaded.error().code != errc::internal);
    changed += contains(loaded.error().note, "changed while it was read") ? 1 : 0;
  }
  stop = true;
  writer.join();
  CHECK(changed > 0);
}
