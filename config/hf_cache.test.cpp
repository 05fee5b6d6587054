#include "config/hf_cache.hpp"

#include "config/test_repository.hpp"

using namespace troupe;
using namespace troupe::config;

namespace {

/// A cache as huggingface_hub lays it out: refs name commits, snapshots link to blobs.
void add_to_cache(test_repository& repo, const std::string& folder, const std::string& commit) {
  const auto base = "hf-home/hub/" + folder + "/";
  const auto blob = repo.write(base + "blobs/1234", R"({"max_position_embeddings": 777})");
  const auto snapshot = repo.at(base + "snapshots/" + commit);
  std::filesystem::create_directories(snapshot);
  std::filesystem::create_symlink(blob, snapshot / "config.json");
}

load_options with_cache(const test_repository& repo) {
  load_options options;
  options.environment = {{"HF_HOME", repo.at("hf-home").string()}};
  return options;
}

} // namespace

TEST_CASE("the cache is where Hugging Face's variables say") {
  using variables = std::map<std::string, std::string>;
  CHECK(hub_directory(variables{{"HOME", "/h"}}) == "/h/.cache/huggingface/hub");
  CHECK(hub_directory(variables{{"HOME", "/h"}, {"XDG_CACHE_HOME", "/x"}}) == "/x/huggingface/hub");
  CHECK(hub_directory(variables{{"XDG_CACHE_HOME", "/x"}, {"HF_HOME", "/f"}}) == "/f/hub");
  CHECK(hub_directory(variables{{"HF_HOME", "/f"}, {"HF_HUB_CACHE", "/c"}}) == "/c");
  CHECK(hub_directory(variables{{"HF_HOME", ""}}).empty());
  CHECK(cache_directory(variables{{"HOME", "/h"}, {"XDG_CACHE_HOME", "/x"}}) == "/x/troupe");
  CHECK(cache_directory(variables{{"HOME", "/h"}}) == "/h/.cache/troupe");
  CHECK(cache_directory({}).empty());
  CHECK(hub_directory({}).empty());
}

TEST_CASE("ids of models have at most one slash and lead nowhere else") {
  for (const auto* id : {"gpt2", "facebook/opt-125m", "Qwen/Qwen2.5-0.5B"})
    CHECK(is_hub_id(id));
  for (const auto* id : {"", "/", "../hf", "a/b/c", "a/", "/a", "a b", "..", "a/..", "./a"})
    CHECK_FALSE(is_hub_id(id));
}

TEST_CASE("a model of the cache is found by branch, tag, commit or alone") {
  test_repository repo;
  const std::string folder = "models--tiny--bard";
  const auto hub = repo.at("hf-home/hub");
  add_to_cache(repo, folder, "aaa111");
  const auto snapshots = hub / folder / "snapshots";
  CHECK(*find_in_hub(hub, "tiny/bard", "") == snapshots / "aaa111");
  add_to_cache(repo, folder, "bbb222");
  const auto unclear = find_in_hub(hub, "tiny/bard", "");
  REQUIRE_FALSE(unclear);
  CHECK(contains(unclear.error().note, "aaa111, bbb222"));
  repo.write("hf-home/hub/" + folder + "/refs/main", "bbb222\n");
  repo.write("hf-home/hub/" + folder + "/refs/refs/pr/1", "aaa111");
  CHECK(*find_in_hub(hub, "tiny/bard", "") == snapshots / "bbb222");
  CHECK(*find_in_hub(hub, "tiny/bard", "refs/pr/1") == snapshots / "aaa111");
  CHECK(*find_in_hub(hub, "tiny/bard", "aaa111") == snapshots / "aaa111");
  CHECK_FALSE(find_in_hub(hub, "tiny/bard", "v2"));
  CHECK(find_in_hub(hub, "tiny/bard", "../../../etc").error().code == errc::invalid_argument);
  CHECK(find_in_hub(hub, "tiny/hamlet", "").error().code == errc::not_found);
  // A ref that leads out of the snapshots leads nowhere.
  repo.write("hf-home/hub/" + folder + "/refs/evil", "../blobs");
  CHECK_FALSE(find_in_hub(hub, "tiny/bard", "evil"));
}

TEST_CASE("model.json may name a model of the cache; a path wins") {
  test_repository repo;
  add_to_cache(repo, "models--tiny--bard", "aaa111");
  repo.write("models/bard/1/model.json", "{\"model\": \"tiny/bard\"}");
  auto model = repo.load(with_cache(repo)).models.front();
  CHECK(*model.engine.model == repo.at("hf-home/hub/models--tiny--bard/snapshots/aaa111"));
  CHECK(**model.engine.max_model_len == 777);
  // A directory of that name beside model.json is meant first.
  repo.write("models/bard/1/tiny/bard/config.json", R"({"max_position_embeddings": 55})");
  model = repo.load(with_cache(repo)).models.front();
  CHECK(*model.engine.model == repo.at("models/bard/1/tiny/bard"));
}

TEST_CASE("a revision chooses the snapshot") {
  test_repository repo;
  add_to_cache(repo, "models--tiny--bard", "aaa111");
  add_to_cache(repo, "models--tiny--bard", "bbb222");
  repo.write("models/bard/1/model.json", R"({"model": "tiny/bard", "revision": "bbb222"})");
  const auto model = repo.load(with_cache(repo)).models.front();
  CHECK(model.engine.model->filename() == "bbb222");
  CHECK(*model.engine.revision == "bbb222");
}

TEST_CASE("what is neither a path nor in the cache says where it was looked for") {
  test_repository repo;
  repo.write("models/bard/1/model.json", "{\n\"model\": \"tiny/hamlet\"}");
  const auto loaded = repo.check(with_cache(repo));
  const auto* found = about(loaded, "models.bard.model");
  REQUIRE(found != nullptr);
  CHECK(found->code == errc::not_found);
  CHECK(found->line == 2);
  CHECK(contains(found->message, repo.at("models/bard/1/tiny/hamlet").string()));
  CHECK(contains(found->message, "models--tiny--hamlet"));
  CHECK(contains(found->message, repo.at("hf-home/hub").string()));
  CHECK(contains(found->message, "not downloaded"));
}
