#include "actors/cli/bench_local.hpp"

#include "actors/cli/client.hpp"
#include "actors/cli/engine_options.hpp"
#include "actors/cli/system_config.hpp"
#include "troupe/actors/cluster.hpp"
#include "troupe/base/log.hpp"
#include "troupe/config/diagnostics.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <future>
#include <map>
#include <optional>
#include <utility>

namespace troupe::cli {

namespace {

using steady = std::chrono::steady_clock;

/// All that a run of a shape is made of; owned by the actor that runs it.
struct load_state {
  load_shape shape;
  std::string model;
  std::uint32_t vocabulary = 0;
  actors::router_actor router;
  std::promise<result<load_times>> done;
  load_times all;
  steady::time_point begin;
  std::vector<steady::time_point> sent;
  std::map<request_id, std::uint32_t> index;
  std::uint32_t next = 0;
  std::uint32_t ended = 0;
};

using load_actor = actors::token_sink;
using self_ptr = load_actor::stateful_pointer<load_state>;

double seconds(steady::time_point begin, steady::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

void give_up(self_ptr self, const error& why) {
  auto& st = actors::state(self);
  // Only the first of several is told.
  if (st.ended > st.shape.requests)
    return;
  st.ended = st.shape.requests + 1;
  st.done.set_value(fail(why));
  self->quit();
}

void send_next(self_ptr self) {
  auto& st = actors::state(self);
  const auto i = st.next++;
  engine::submission request;
  request.model = st.model;
  request.prompt = random_prompt(st.shape, i, st.vocabulary);
  request.sampling.temperature = 0;
  request.sampling.max_tokens = st.shape.output;
  request.sampling.ignore_eos = true;
  st.sent[i] = steady::now();
  actors::ask(self, st.router, std::chrono::hours{1}, actors::submit_atom::value,
              std::move(request), load_actor{self})
      .then([self, i](const actors::accepted& taken) { actors::state(self).index[taken.id] = i; },
            [self](const caf::error& why) { give_up(self, actors::from_caf(why)); });
}

/// True when the chunk ends its answer.
bool take_chunk(load_state& st, const engine::token_chunk& chunk, steady::time_point now) {
  const auto i = st.index.at(chunk.request);
  auto& times = st.all.answers[i];
  const double at = seconds(st.sent[i], now);
  if (!chunk.ids.empty()) {
    if (times.tokens == 0)
      times.first = at;
    else
      times.gaps.push_back(at - times.last);
    times.last = at;
    times.tokens += chunk.ids.size();
  }
  return chunk.finish != engine::finish_reason::none;
}

void take_batch(self_ptr self, const engine::token_batch& batch) {
  auto& st = actors::state(self);
  const auto now = steady::now();
  for (const auto& chunk : batch.chunks) {
    if (!take_chunk(st, chunk, now))
      continue;
    if (chunk.finish != engine::finish_reason::length)
      return give_up(self, {chunk.why, "an answer ended early: " + chunk.note});
    if (++st.ended == st.shape.requests) {
      st.all.seconds = seconds(st.begin, now);
      st.done.set_value(std::move(st.all));
      return self->quit();
    }
    if (st.next < st.shape.requests)
      send_next(self);
  }
}

load_actor::behavior_type run_load(self_ptr self, const std::shared_ptr<load_state>& given) {
  auto& st = actors::state(self);
  st = std::move(*given);
  st.all.answers.resize(st.shape.requests);
  st.sent.resize(st.shape.requests);
  self->monitor(st.router);
  self->set_down_handler([self](const caf::down_msg& down) {
    give_up(self, {errc::peer_down, "the router died: " + actors::from_caf(down.reason).note});
  });
  st.begin = steady::now();
  while (st.next < st.shape.concurrency)
    send_next(self);
  return {[self](const engine::token_batch& batch) { take_batch(self, batch); }};
}

class local_cluster final : public load_target {
public:
  local_cluster(std::string model, std::uint32_t vocabulary)
      : model_{std::move(model)}, vocabulary_{vocabulary}, system_{config_} {}

  /// `open` requests will be open at a time: none of them is to be turned away.
  result<void> start(const config::cluster_config& config, std::uint32_t open) {
    auto alone = config;
    alone.older_versions.clear();
    const auto raise = [open](auto& limit) { limit.value = std::max(limit.value, open); };
    raise(alone.limits.max_queued_requests);
    for (auto& one : alone.models)
      raise(one.max_queued_requests);
    for (auto& node : alone.nodes)
      node.address = {}; // Nobody else is to be reached.
    auto running = actors::start_cluster(system_, alone);
    if (!running)
      return fail(running.error());
    running_.emplace(std::move(*running));
    return running_->await_ready(std::chrono::hours{1});
  }

  result<load_times> run(const load_shape& shape) override {
    auto st = std::make_shared<load_state>();
    st->shape = shape;
    st->model = model_;
    st->vocabulary = vocabulary_;
    st->router = running_->router();
    auto done = st->done.get_future();
    system_.spawn(run_load, std::move(st));
    return done.get();
  }

  std::string metrics() override {
    http_client client{{.host = "127.0.0.1", .port = std::to_string(running_->http_port())}, {}};
    const auto answer = client.call({.path = "/metrics"});
    return answer && answer->status == 200 ? answer->body : std::string{};
  }

private:
  std::string model_;
  std::uint32_t vocabulary_;
  system_config config_;
  caf::actor_system system_;
  std::optional<actors::cluster> running_;
};

} // namespace

result<std::unique_ptr<load_target>> start_local(const file_options& file, const std::string& model,
                                                 std::uint32_t vocabulary, std::uint32_t open) {
  auto loaded = config::check_cluster(file.file, engine_options_of(file));
  for (const auto& finding : loaded.diagnostics)
    std::fprintf(stderr, "%s\n", to_string(finding).c_str());
  if (config::has_errors(loaded.diagnostics) || !loaded.config)
    return fail(errc::invalid_argument,
                fmt::format("mend the errors above; `troupe check {}` explains every value",
                            file.file.string()));
  const auto& config = *loaded.config;
  set_log_level(*config.log_level);
  std::string name = model.empty() ? config.models.front().name : model;
  if (std::none_of(config.models.begin(), config.models.end(),
                   [&](const auto& one) { return one.name == name; }))
    return fail(errc::not_found, fmt::format("{} serves no model '{}'; `troupe check` lists them",
                                             file.file.string(), name));
  auto made = std::make_unique<local_cluster>(std::move(name), vocabulary);
  if (auto started = made->start(config, open); !started)
    return fail(started.error());
  return made;
}

} // namespace troupe::cli
