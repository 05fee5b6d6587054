#include "tests/cluster/fixture.hpp"

#include <catch2/catch.hpp>

#include <functional>
#include <thread>

using namespace troupe;
using namespace troupe::testing;

namespace {

/// Waits until `what` holds; a test that gives up here fails with the description of the caller.
bool eventually(const std::function<bool()>& what) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{60};
  while (std::chrono::steady_clock::now() < end) {
    if (what())
      return true;
    std::this_thread::sleep_for(std::chrono::milliseconds{5});
  }
  return false;
}

std::vector<engine::submission> long_requests(std::size_t count) {
  std::vector<engine::submission> made;
  for (std::size_t i = 0; i < count; ++i)
    made.push_back(request_for(
        {5, 6, 7}, {.temperature = 1.0F, .seed = i, .max_tokens = 400, .ignore_eos = true}));
  return made;
}

/// Every way to choose a token, and every way to end but eos.
std::vector<engine::submission> mixed_requests() {
  auto made = long_requests(4);
  made.push_back(request_for({5, 6}, {.temperature = 0, .max_tokens = 300, .ignore_eos = true}));
  made.push_back(request_for(
      {9}, {.temperature = 0.8F, .top_k = 20, .seed = 3, .max_tokens = 300, .ignore_eos = true}));
  made.push_back(request_for({9, 4}, {.temperature = 1.1F,
                                      .top_p = 0.9F,
                                      .min_p = 0.02F,
                                      .seed = 4,
                                      .max_tokens = 300,
                                      .ignore_eos = true}));
  made.push_back(request_for(
      {7, 7}, {.temperature = 1.0F, .seed = 5, .max_tokens = 400, .stop_token_ids = {10, 11, 12}}));
  return made;
}

/// The unused argument keeps CAF 0.17 from dereferencing its empty tuple of arguments, which UBSan
/// calls what it is.
actors::token_sink::behavior_type deaf_sink(actors::token_sink::pointer, int) {
  return {[](const engine::token_batch&) {}};
}

} // namespace

TEST_CASE("the death of each engine actor is a pause for its streams, which lose no token") {
  const std::string kind = GENERATE("scheduler", "kv_manager", "worker", "rank", "replica");
  const std::string ranks = kind == "rank" ? R"(, "tensor_parallel_size": 2)" : "";
  running_cluster running{{.engine_keys = R"("max_model_len": 512)" + ranks}};
  INFO("killed: " << kind);
  const auto undisturbed = running.run(mixed_requests());
  std::thread killer{[&] {
    // Not before all are there: a new request is refused while no replica is up.
    eventually([&] { return running.status().replicas.front().running >= 6; });
    running.cluster().kill(kind);
  }};
  const auto outcomes = running.run(mixed_requests());
  killer.join();
  REQUIRE(outcomes.size() == undisturbed.size());
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    INFO("request " << i << ": " << outcomes[i].note);
    CHECK_FALSE(outcomes[i].refused);
    CHECK(outcomes[i].finish == undisturbed[i].finish);
    CHECK(outcomes[i].tokens == undisturbed[i].tokens);
  }
  CHECK(eventually([&] { return running.status().replicas.front().restarts == 1; }));
}

TEST_CASE("requests of one prefix go where it is cached, also after that replica's death") {
  running_cluster running{
      {.engine_keys = R"("max_model_len": 512)",
       .cluster_keys = R"("models": {"m": {"instances": 2}}, "routing": {"policy": "prefix"})"}};
  const auto ask = [&](token_id first, token_id last) {
    // What the replicas say of their loads is that old at most.
    std::this_thread::sleep_for(std::chrono::milliseconds{250});
    std::vector<token_id> prompt(200, first);
    prompt.push_back(last);
    const auto o = running.run_one(request_for(prompt, {.temperature = 0, .max_tokens = 2}));
    REQUIRE(!o.refused);
    REQUIRE(o.finish != engine::finish_reason::error);
    return o.cached_tokens;
  };
  const auto all_hit = [&](token_id from) {
    std::size_t hits = 0;
    for (token_id i = 0; i < 8; ++i)
      hits += ask(20 + i % 2, from + i) >= 192 ? 1 : 0;
    return hits == 8;
  };
  CHECK(ask(20, 1) == 0);
  CHECK(ask(21, 1) == 0);
  CHECK(eventually([&] { return all_hit(30); }));
  running.cluster().kill("scheduler");
  // What died is not counted on any more, and found again once it has been computed anew.
  CHECK(eventually([&] {
    return running.run_one(request_for({5}, {.temperature = 0, .max_tokens = 1})).refused ==
           std::nullopt;
  }));
  CHECK(eventually([&] { return all_hit(40); }));
}

TEST_CASE("a sink that dies frees its blocks") {
  running_cluster running{{.engine_keys = R"("max_model_len": 512)"}};
  const auto used = [&] { return running.status().replicas.front().running; };
  {
    caf::scoped_actor self{running.system()};
    const auto sink = running.system().spawn(deaf_sink, 0);
    for (auto& request : long_requests(3))
      self->request(running.cluster().router(), std::chrono::seconds{10},
                    actors::submit_atom::value, request, sink)
          .receive([](const actors::accepted&) {},
                   [](const caf::error& why) { FAIL(actors::from_caf(why).note); });
    REQUIRE(eventually([&] { return used() > 0; }));
    self->send_exit(sink, caf::exit_reason::kill);
  }
  CHECK(eventually([&] { return used() == 0; }));
}

TEST_CASE("requests beyond the queue are refused as busy, the others are served") {
  running_cluster small{{.engine_keys = R"("max_num_seqs": 1)",
                         .cluster_keys = R"("models": {"m": {"max_queued_requests": 2}})"}};
  const auto outcomes = small.run(long_requests(8));
  std::size_t refused = 0;
  for (const auto& o : outcomes) {
    if (o.refused)
      CHECK(o.refused->code == errc::busy);
    else
      CHECK(o.finish == engine::finish_reason::length);
    refused += o.refused ? 1 : 0;
  }
  CHECK(refused >= 5);
  CHECK(refused < 8);
}

TEST_CASE("an unknown model, an empty prompt and a prompt too long are refused by name") {
  running_cluster running{{}};
  auto unknown = request_for({1, 2}, {});
  unknown.model = "hamlet";
  const auto first = running.run_one(unknown);
  REQUIRE(first.refused);
  CHECK(first.refused->code == errc::not_found);
  CHECK(first.refused->note.find("hamlet") != std::string::npos);
  CHECK(running.run_one(request_for({}, {})).refused->code == errc::invalid_argument);
  const auto far = running.run_one(request_for(std::vector<token_id>(100'000, 7), {}));
  REQUIRE(far.refused);
  CHECK(far.refused->note.find("100000") != std::string::npos);
}

TEST_CASE("a token outside the vocabulary ends its own request and no other") {
  running_cluster running{{}};
  std::vector<engine::submission> mixed;
  mixed.push_back(request_for({1, 2, 3}, {.temperature = 0, .max_tokens = 20, .ignore_eos = true}));
  mixed.push_back(request_for({1, 1'000'000, 3}, {.temperature = 0, .max_tokens = 20}));
  const auto outcomes = running.run(std::move(mixed));
  CHECK(outcomes[0].finish == engine::finish_reason::length);
  CHECK((outcomes[1].refused || outcomes[1].finish == engine::finish_reason::error));
}
