#include "troupe/config/agreement.hpp"

#include "config/test_repository.hpp"

using namespace troupe;
using namespace troupe::config;

namespace {

/// The names of the parts in which two configurations differ.
std::vector<std::string> differ(const std::vector<agreed_part>& a,
                                const std::vector<agreed_part>& b) {
  REQUIRE(a.size() == b.size());
  std::vector<std::string> out;
  for (std::size_t i = 0; i < a.size(); ++i) {
    REQUIRE(a[i].name == b[i].name);
    if (a[i].hash != b[i].hash)
      out.push_back(a[i].name);
  }
  return out;
}

} // namespace

TEST_CASE("what nodes must agree on differs by part") {
  const test_repository repo;
  const auto with = [&](const std::string& set) { return agreement_of(repo.load({.set = {set}})); };
  const auto plain = agreement_of(repo.load());
  CHECK(plain.size() == 3);
  CHECK(plain == agreement_of(repo.load()));
  const auto [set, part] = GENERATE(table<std::string, std::string>({
      {"models.bard.max_num_seqs=7", "models.bard"},
      {"models.bard.served_model_name=will", "models.bard"},
      {R"(models.bard.chat_template="{{ messages }}")", "models.bard"},
      {"models.bard.dtype=float32", "numerics"},
      {"models.bard.deterministic=true", "numerics"},
      {"routing.policy=round_robin", "routing"},
  }));
  CAPTURE(set);
  CHECK(differ(plain, with(set)) == std::vector<std::string>{part});
}

TEST_CASE("nodes, instances and what is a machine's own need not agree") {
  test_repository repo;
  const auto plain = agreement_of(repo.load());
  for (const auto* set :
       {"models.bard.instances=5", "cpu.threads=3", "limits.shutdown_deadline_s=1",
        "edges.http.port=1", "log_level=debug", "wire.dead_after_s=3"})
    CHECK(agreement_of(repo.load({.set = {set}})) == plain);
  const test_repository elsewhere;
  CHECK(agreement_of(elsewhere.load()) == plain);
  repo.write("models/bard/hf/config.json",
             "{\"max_position_embeddings\": 1024, \"eos_token_id\": 2}");
  CHECK(differ(plain, agreement_of(repo.load())) == std::vector<std::string>{"models.bard"});
}

TEST_CASE("a crowd of models shares a part") {
  test_repository repo;
  for (int i = 0; i < 60; ++i)
    repo.add_model("m" + std::to_string(i), R"({"model": "../hf"})");
  const auto plain = agreement_of(repo.load());
  CHECK(plain.size() == 3);
  CHECK(differ(plain, agreement_of(repo.load({.set = {"models.m7.max_num_seqs=7"}}))) ==
        std::vector<std::string>{"models"});
}
