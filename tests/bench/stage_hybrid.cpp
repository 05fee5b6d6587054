// What a hybrid backend that only forwards costs, without actors: the engine's own backend against
// the same behind a library, both with an engine that takes every request and does nothing.

#include "tests/bench/stage_parts.hpp"

#include "actors/backend/hybrid_backend.hpp"
#include "troupe/actors/architectures.hpp"
#include "troupe/actors/backends.hpp"
#include "troupe/config/load.hpp"

#include <utility>

namespace stage {

namespace {

using namespace troupe;

class idle_engine final : public actors::engine_port {
public:
  void submit(engine::submission, std::shared_ptr<actors::token_stream> stream,
              actors::response_sink_ptr) override {
    last = std::move(stream);
  }
  std::shared_ptr<actors::token_stream> last;
};

class idle_sink final : public actors::response_sink {
public:
  void on_accepted(request_id, std::uint32_t) override {}
  void on_part(actors::response_part part) override {
    if (part.finish == engine::finish_reason::error)
      give_up(part.why.note);
  }
  [[nodiscard]] bool wanted() const override { return true; }
};

config::model_config load(const std::string& repository, const std::string& backends,
                          const std::string& name) {
  config::load_options how;
  how.set = {"backend_directory=" + backends};
  how.environment = config::process_environment();
  how.capabilities.ask_backend = actors::ask_backend;
  how.capabilities.architectures = actors::served_architectures();
  auto loaded = config::load_cluster(repository, how);
  if (!loaded)
    give_up(loaded.error().note);
  for (auto& one : loaded->models)
    if (one.name == name)
      return std::move(one);
  give_up("no model " + name);
}

double execute_ns(actors::backend& which, idle_engine& engine) {
  constexpr int requests = 2000;
  auto request = std::make_shared<actors::inference_request>();
  request->model = "bard";
  request->prompt_text = "ROMEO:";
  request->max_tokens = 16;
  const auto begin = steady::now();
  for (int i = 0; i < requests; ++i)
    which.execute(request, std::make_shared<idle_sink>());
  const std::chrono::duration<double, std::nano> took = steady::now() - begin;
  (void)engine;
  return took.count() / requests;
}

double token_ns(actors::backend& which, idle_engine& engine) {
  constexpr std::uint32_t tokens = 4000;
  auto request = std::make_shared<actors::inference_request>();
  request->model = "bard";
  request->prompt_text = "ROMEO:";
  which.execute(request, std::make_shared<idle_sink>());
  engine::token_chunk chunk;
  chunk.ids = {42};
  const auto begin = steady::now();
  for (std::uint32_t i = 0; i < tokens; ++i)
    if (!engine.last->on_chunk(chunk))
      give_up("the stream wants no more");
  const std::chrono::duration<double, std::nano> took = steady::now() - begin;
  return took.count() / tokens;
}

} // namespace

forward_cost measure_forward(const std::string& repository, const std::string& backends) {
  idle_engine engine;
  actors::engine_backend plain;
  actors::hybrid_backend hybrid{nullptr};
  const std::pair<actors::backend*, std::string> both[] = {{&plain, "bard"},
                                                           {&hybrid, "forwarded"}};
  for (const auto& [which, name] : both) {
    auto model = which->auto_complete_config(load(repository, backends, name));
    if (!model)
      give_up(model.error().note);
    if (auto ready = which->initialize(*model, engine); !ready)
      give_up(ready.error().note);
  }
  forward_cost best{1e18, 1e18, 1e18, 1e18};
  // The least of many short runs: what others do on the machine only adds.
  constexpr int rounds = 25;
  for (int i = 0; i < rounds; ++i) {
    best.plain_request_ns = std::min(best.plain_request_ns, execute_ns(plain, engine));
    best.request_ns = std::min(best.request_ns, execute_ns(hybrid, engine));
    best.plain_token_ns = std::min(best.plain_token_ns, token_ns(plain, engine));
    best.token_ns = std::min(best.token_ns, token_ns(hybrid, engine));
  }
  return best;
}

} // namespace stage
