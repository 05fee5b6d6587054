#include "config/overrides.hpp"

#include "config/test_repository.hpp"

using namespace troupe;
using namespace troupe::config;

namespace {

load_options with_set(std::vector<std::string> set) {
  load_options options;
  options.set = std::move(set);
  return options;
}

load_options with_environment(std::map<std::string, std::string> environment) {
  load_options options;
  options.environment = std::move(environment);
  return options;
}

} // namespace

TEST_CASE("the command line beats the environment, which beats the file, visibly") {
  test_repository repo;
  repo.write("cluster.json", R"({"model_repository": "models", "log_level": "warn"})");
  auto options = with_environment({{"TROUPE_LOG_LEVEL", "debug"}, {"HOME", "/root"}});
  auto cluster = repo.load(options);
  CHECK(*cluster.log_level == log_level::debug);
  CHECK(to_string(cluster.log_level.from) == "environment TROUPE_LOG_LEVEL");
  options.set = {"log_level=info", "log_level=error"};
  cluster = repo.load(options);
  CHECK(*cluster.log_level == log_level::error);
  CHECK(to_string(cluster.log_level.from) == "command line --set log_level=error");
  CHECK(is_explicit(cluster.log_level.from));
}

TEST_CASE("every field can be set from outside") {
  test_repository repo;
  repo.add_model("qwen2.5", R"({"model": "../hf", "max_num_seqs": 3})");
  repo.write("cluster.json", R"({"model_repository": "models", "edges": {"http": 8123}})");
  auto options = with_set({"models.bard.max_num_seqs=8", "models.\"qwen2.5\".max_num_seqs=9",
                           "edges.http.max_connections=5", "cluster=123",
                           "models.bard.served_model_name=[\"a\", \"b\"]"});
  options.environment = {{"TROUPE_SET__models__bard__block_size", "32"},
                         {"TROUPE_HTTP_HOST", "localhost"}};
  const auto cluster = repo.load(options);
  REQUIRE(cluster.models.size() == 2);
  CHECK(*cluster.models[0].engine.max_num_seqs == 8);
  CHECK(*cluster.models[0].engine.block_size == 32);
  CHECK(cluster.models[0].engine.served_model_name->size() == 2);
  CHECK(find_model(cluster, "b") == &cluster.models[0]);
  CHECK(*cluster.models[1].engine.max_num_seqs == 9);
  CHECK(*cluster.cluster == "123");
  CHECK(*cluster.nodes[0].http->port == 8123);
  CHECK(*cluster.nodes[0].http->max_connections == 5);
  CHECK(*cluster.nodes[0].http->host == "localhost");
}

TEST_CASE("the http variables reach the node where requests enter") {
  test_repository repo;
  repo.write("cluster.json", R"({"model_repository": "models", "nodes": [
    {"name": "only", "edges": {"http": 1}}]})");
  auto cluster = repo.load(with_environment({{"TROUPE_HTTP_PORT", "9000"}}));
  CHECK(*cluster.nodes[0].http->port == 9000);
  cluster = repo.load(with_set({"nodes.only.edges.http=9001"}));
  CHECK(*cluster.nodes[0].http->port == 9001);
  cluster = repo.load(with_set({"nodes.0.edges.http=9002"}));
  CHECK(*cluster.nodes[0].http->port == 9002);
  cluster = repo.load(with_set({"edges.http.port=9003"}));
  CHECK(*cluster.nodes[0].http->port == 9003);
}

TEST_CASE("a wrong override is an error that names it") {
  const test_repository repo;
  const auto [set, code, part] = GENERATE(table<std::string, errc, std::string>({
      {"log_level", errc::invalid_argument, "path.to.key=value"},
      {"=1", errc::invalid_argument, "path.to.key=value"},
      {"a..b=1", errc::invalid_argument, "path.to.key=value"},
      {"models.\"bard.seed=1", errc::invalid_argument, "path.to.key=value"},
      {"models.bard.sed=1", errc::invalid_argument, "did you mean 'seed'"},
      {"models.bard.seed=x", errc::invalid_argument, "integer"},
      {"models.bard.seed={\"a\"", errc::corrupt_data, "not valid JSON"},
      {"models.bart.seed=1", errc::not_found, "did you mean 'bard'"},
      {"cpu.threads=NaN", errc::invalid_argument, "integer"},
      {"log_level.x=1", errc::invalid_argument, "string"},
      {"model_repository=", errc::invalid_argument, "path"},
      {"cluster=\xff", errc::corrupt_data, "UTF-8"},
      {"models.bard.served_model_name=a\nb", errc::corrupt_data, "control"},
      {"models.bard.served_model_name=\"a\\u0000\"", errc::invalid_argument, "printable"},
  }));
  CAPTURE(set);
  const auto loaded = repo.check(with_set({set}));
  REQUIRE_FALSE(loaded.config);
  const auto& d = loaded.diagnostics.at(0);
  CAPTURE(to_string(d));
  CHECK(d.code == code);
  CHECK(contains(d.file, "command line --set"));
  CHECK(contains(d.message, part));
}

TEST_CASE("an element that is not there cannot be set") {
  test_repository repo;
  repo.write("cluster.json", R"({"model_repository": "models", "nodes": [{"name": "a"}]})");
  const auto loaded = repo.check(with_set({"nodes.b.router=true"}));
  REQUIRE(loaded.diagnostics.size() == 1);
  CHECK(loaded.diagnostics[0].code == errc::not_found);
}

TEST_CASE("a variable that nobody reads is a warning with the nearest name") {
  const test_repository repo;
  const auto loaded = repo.check(with_environment({{"TROUPE_LOGLEVEL", "info"}}));
  CHECK(loaded.config);
  REQUIRE(loaded.diagnostics.size() == 1);
  CHECK(loaded.diagnostics[0].severity == severity::warning);
  CHECK(contains(loaded.diagnostics[0].message, "TROUPE_LOG_LEVEL"));
  CHECK_FALSE(repo.check(with_environment({{"TROUPE_SET__", "1"}})).config);
}

TEST_CASE("paths from outside are relative to the working directory") {
  const test_repository repo;
  const auto cluster = repo.load(with_set({"model_repository=" + repo.at("models").string()}));
  CHECK(*cluster.model_repository == repo.at("models"));
  CHECK_FALSE(repo.check(with_set({"model_repository=models-that-are-not-here"})).config);
}

TEST_CASE("the process environment is read by its prefix") {
  REQUIRE(setenv("TROUPE_SET__cluster", "globe=1", 1) == 0);
  REQUIRE(setenv("TROUP_OTHER", "x", 1) == 0);
  const auto found = process_environment();
  REQUIRE(found.count("TROUPE_SET__cluster") == 1);
  CHECK(found.at("TROUPE_SET__cluster") == "globe=1");
  CHECK(found.count("TROUP_OTHER") == 0);
  unsetenv("TROUPE_SET__cluster");
}
