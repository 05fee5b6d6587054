#include "troupe/config/explain.hpp"

#include <set>

#include "config/test_repository.hpp"

using namespace troupe;
using namespace troupe::config;

namespace {

const explained_value& row(const explanation& e, const std::string& path) {
  const auto found =
      std::find_if(e.values.begin(), e.values.end(), [&](const auto& v) { return v.path == path; });
  CAPTURE(path);
  REQUIRE(found != e.values.end());
  return *found;
}

} // namespace

TEST_CASE("every value says where it comes from") {
  test_repository repo;
  repo.write("cluster.json", "{\n\"model_repository\": \"models\",\n\"cluster\": \"globe\"}");
  repo.write("models/bard/1/model.json",
             "{\"model\": \"../hf\",\n\"seed\": 3, \"enforce_eager\": true}");
  load_options options;
  options.set = {"models.bard.max_num_seqs=8"};
  options.environment = {{"TROUPE_HTTP_PORT", "8123"}};
  const auto cluster = repo.load(options);
  const auto e = explain(cluster);
  const auto file = repo.at("cluster.json").string();
  CHECK(row(e, "cluster").value == "\"globe\"");
  CHECK(row(e, "cluster").from == file + ":3");
  CHECK(row(e, "nodes.0.edges.http.port").value == "8123");
  CHECK(row(e, "nodes.0.edges.http.port").from == "environment TROUPE_HTTP_PORT");
  CHECK(row(e, "models.bard.max_num_seqs").from == "command line --set models.bard.max_num_seqs=8");
  CHECK(row(e, "models.bard.seed").from == repo.at("models/bard/1/model.json").string() + ":2");
  CHECK(row(e, "models.bard.max_model_len").from ==
        repo.at("models/bard/hf/config.json").string() + ":1");
  CHECK(row(e, "models.bard.generation.eos_token_id").value == "[2]");
  CHECK(row(e, "models.bard.block_size").from == "default");
  CHECK(row(e, "models.bard.max_num_batched_tokens").value == "(measured at load)");
  REQUIRE(e.without_effect.size() == 1);
  CHECK(e.without_effect[0].path == "models.bard.enforce_eager");
  std::set<std::string> paths;
  for (const auto& v : e.values)
    CHECK(paths.insert(v.path).second);
}

TEST_CASE("the text has a line for each row and each finding") {
  const test_repository repo;
  load_options options;
  options.environment = {{"TROUPE_NOBODY", "1"}};
  const auto loaded = repo.check(options);
  REQUIRE(loaded.config);
  const auto e = explain(*loaded.config);
  const auto text = render(e, loaded.diagnostics);
  const auto lines = static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
  auto expected = e.values.size() + loaded.diagnostics.size() + 2;
  REQUIRE(e.configs.size() == 1);
  for (const auto& config : e.configs)
    expected += config.lines.size() + 1;
  CHECK(lines == expected);
  for (const auto& v : e.values)
    CHECK(contains(text, v.path + " "));
  CHECK(contains(text, "environment TROUPE_NOBODY: warning"));
}

TEST_CASE("each origin has words of its own") {
  CHECK(to_string(origin{}) == "default");
  CHECK(to_string(origin{origin_kind::default_value, "", 0, "x"}) == "default (x)");
  CHECK(to_string(origin{origin_kind::user_file, "f", 2, ""}) == "f:2");
  CHECK(to_string(origin{origin_kind::model_file, "f", 0, ""}) == "f");
  CHECK(to_string(origin{origin_kind::measured, "", 0, ""}) == "measured");
  CHECK(to_string(origin{origin_kind::auto_completion, "", 0, "b"}) == "auto-completion (b)");
  CHECK_FALSE(is_explicit(origin{origin_kind::measured, "", 0, ""}));
}
