#include "tests/cluster/fixture.hpp"

#include <catch2/catch.hpp>

#include <fstream>
#include <future>
#include <map>
#include <unistd.h>

namespace troupe::testing {

namespace {

/// Collects the chunks of many requests; fulfils the promise when all have ended.
struct collector_state {
  std::vector<outcome> outcomes;
  std::map<request_id, std::size_t> index;
  std::size_t open = 0;
  std::promise<std::vector<outcome>> all;

  void end_one() {
    if (--open == 0)
      all.set_value(std::move(outcomes));
  }

  void take(const engine::token_chunk& chunk) {
    auto& o = outcomes.at(index.at(chunk.request));
    CHECK(chunk.offset == o.tokens.size());
    o.tokens.insert(o.tokens.end(), chunk.ids.begin(), chunk.ids.end());
    o.cached_tokens = std::max(o.cached_tokens, chunk.cached_tokens);
    if (chunk.finish == engine::finish_reason::none)
      return;
    CHECK(o.finish == engine::finish_reason::none);
    o.finish = chunk.finish;
    o.note = chunk.note;
    end_one();
  }
};

using collector_actor = actors::token_sink;

collector_actor::behavior_type collector(collector_actor::stateful_pointer<collector_state> self,
                                         const actors::router_actor& router,
                                         std::vector<engine::submission> requests,
                                         std::promise<std::vector<outcome>> all) {
  auto& st = actors::state(self);
  st.all = std::move(all);
  st.open = requests.size();
  st.outcomes.resize(requests.size());
  for (std::size_t i = 0; i < requests.size(); ++i)
    actors::ask(self, router, std::chrono::minutes{2}, actors::submit_atom::value,
                std::move(requests[i]), collector_actor{self})
        .then([self, i](const actors::accepted& taken) { actors::state(self).index[taken.id] = i; },
              [self, i](const caf::error& why) {
                actors::state(self).outcomes[i].refused = actors::from_caf(why);
                actors::state(self).end_one();
              });
  return {[self](const engine::token_batch& batch) {
    for (const auto& chunk : batch.chunks)
      actors::state(self).take(chunk);
  }};
}

} // namespace

temporary_folder::temporary_folder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "troupe-test-XXXXXX").string();
  REQUIRE(mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
}

temporary_folder::~temporary_folder() { std::filesystem::remove_all(path_); }

struct running_cluster::host_config : caf::actor_system_config {
  host_config() {
    actors::add_messages(*this);
    set("scheduler.policy", caf::atom("sharing"));
    set("scheduler.max-threads", std::size_t{2});
  }
};

running_cluster::running_cluster(options what) {
  const auto version = folder_.path() / "models" / "m" / "1";
  std::filesystem::create_directories(version);
  std::ofstream{version / "model.json"}
      << "{\"model\": \"" << TROUPE_SOURCE_DIR << "/" << what.model_dir << "\""
      << (what.engine_keys.empty() ? "" : ", ") << what.engine_keys << "}";
  std::ofstream{folder_.path() / "cluster.json"} << "{\"model_repository\": \"models\""
                                                 << (what.cluster_keys.empty() ? "" : ", ")
                                                 << what.cluster_keys << "}";
  auto config = config::load_cluster(folder_.path() / "cluster.json", {});
  INFO((config ? std::string{} : config.error().note));
  REQUIRE(config);
  host_ = std::make_unique<host_config>();
  system_ = std::make_unique<caf::actor_system>(*host_);
  auto started =
      actors::start_cluster(*system_, *config, {.edges = false, .executor = what.executor});
  REQUIRE(started);
  cluster_.emplace(std::move(*started));
  auto ready = cluster_->await_ready(std::chrono::minutes{2});
  INFO((ready ? std::string{} : ready.error().note));
  REQUIRE(ready);
}

running_cluster::~running_cluster() { cluster_.reset(); }

std::vector<outcome> running_cluster::run(std::vector<engine::submission> requests) {
  std::promise<std::vector<outcome>> all;
  auto done = all.get_future();
  const auto sink =
      system_->spawn(collector, cluster_->router(), std::move(requests), std::move(all));
  REQUIRE(done.wait_for(std::chrono::minutes{3}) == std::future_status::ready);
  caf::anon_send_exit(sink, caf::exit_reason::user_shutdown);
  return done.get();
}

outcome running_cluster::run_one(engine::submission request) {
  std::vector<engine::submission> one;
  one.push_back(std::move(request));
  return run(std::move(one)).front();
}

actors::cluster_status running_cluster::status() {
  caf::scoped_actor self{*system_};
  actors::cluster_status found;
  self->request(cluster_->router(), std::chrono::seconds{10}, actors::status_atom::value)
      .receive([&](actors::cluster_status& s) { found = std::move(s); },
               [](const caf::error& why) { FAIL(actors::from_caf(why).note); });
  return found;
}

engine::submission request_for(std::vector<token_id> prompt, engine::sampling_params sampling) {
  engine::submission made;
  made.model = "m";
  made.prompt = std::move(prompt);
  made.sampling = std::move(sampling);
  return made;
}

} // namespace troupe::testing
