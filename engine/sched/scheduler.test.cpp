#include "engine/sched/steps.test.hpp"

#include <numeric>

using namespace troupe;
using namespace troupe::engine;
using namespace troupe::engine::test;

TEST_CASE("a request is asked for on arrival and ends with its tokens", "[sched]") {
  world in{roomy(), vocab};
  REQUIRE(in.submit(request_of(1, 10)));
  REQUIRE(in.to_pool.size() == 1);
  const auto& ask = std::get<kv_admit>(in.to_pool.front());
  CHECK(ask.hashes.size() == 2);
  CHECK(ask.tokens.size() == 8);
  CHECK(ask.blocks_wanted >= 3);
  in.drain(100);
  CHECK(in.ends[finish_reason::length] == 1);
  in.check_home();
}

TEST_CASE("the last token of a prompt is always computed", "[sched]") {
  world in{roomy(), vocab};
  REQUIRE(in.submit(request_of(1, 8)));
  CHECK(std::get<kv_admit>(in.to_pool.front()).hashes.size() == 1);
  in.drain(100);
  auto again = request_of(2, 8);
  again.prompt = request_of(1, 8).prompt;
  REQUIRE(in.submit(again));
  const auto step = next_step(in);
  REQUIRE(step);
  CHECK(step->rows[0].position == 4);
  CHECK(step->rows[0].tokens == 4);
  in.drain(100);
  CHECK(in.cached_tokens == 4);
}

TEST_CASE("one budget for all, prompts are cut to fit", "[sched]") {
  world in{roomy(), vocab};
  REQUIRE(in.submit(request_of(1, 20)));
  REQUIRE(in.submit(request_of(2, 20)));
  const auto first = next_step(in);
  REQUIRE(first);
  CHECK(row_sizes(*first) == std::vector<std::uint32_t>{20, 12});
  CHECK(first->rows[0].samples);
  CHECK_FALSE(first->rows[1].samples);
  const auto second = next_step(in);
  REQUIRE(second);
  // A placeholder of the first, the rest of the second.
  CHECK(row_sizes(*second) == std::vector<std::uint32_t>{1, 8});
  CHECK(second->rows[0].position == 20);
  CHECK_FALSE(next_step(in)); // two steps are in flight
  in.drain(100);
  in.check_home();
}

namespace {

/// So many answers of short prompts, which the first step has whole.
void begin_answers(world& in, std::uint64_t count) {
  for (std::uint64_t id = 1; id <= count; ++id)
    REQUIRE(in.submit(request_of(id, 2, 12)));
  REQUIRE(next_step(in));
}

} // namespace

TEST_CASE("prompts are cut the finer the more answers run", "[sched]") {
  auto config = roomy();
  config.max_num_seqs = 32;
  config.max_num_batched_tokens = 1024;
  config.max_model_len = 2048;
  config.num_blocks = 2048;
  const auto prompts_of = [](const step_batch& step) {
    std::uint32_t tokens = 0;
    for (const auto& row : step.rows)
      tokens += row.tokens > 1 ? row.tokens : 0;
    return tokens;
  };
  world few{config, vocab}, many{config, vocab};
  begin_answers(few, 7);
  begin_answers(many, 16);
  for (world* in : {&few, &many}) {
    for (std::uint64_t id = 100; id < 102; ++id)
      REQUIRE(in->submit(request_of(id, 1000)));
  }
  // Seven wait for whatever fits.
  CHECK(prompts_of(*next_step(few)) == 1024 - 7);
  // Sixteen: 2,000 tokens over eight steps, and 266 rows are filled up to 384.
  const auto first = next_step(many);
  CHECK(first->rows.size() == 17);
  CHECK(prompts_of(*first) == 384 - 16);
  REQUIRE(many.step_worker());
  // However little there is, a step has 256 rows: 1,632 tokens over eight steps are fewer.
  for (const std::size_t rows : {17, 17, 18}) {
    // In the last of these the second prompt begins where the first one ends.
    const auto step = next_step(many);
    CHECK(step->rows.size() == rows);
    CHECK(prompts_of(*step) == 256 - 16);
    REQUIRE(many.step_worker());
  }
  for (world* in : {&few, &many}) {
    in->drain(200);
    in->check_home();
  }
  CHECK(many.ends[finish_reason::length] == 18);
}

TEST_CASE("prompts come some in a step where few answers run", "[sched]") {
  auto config = roomy();
  config.max_num_batched_tokens = 1024;
  config.max_model_len = 2048;
  config.num_blocks = 2048;
  config.prompt_step_tokens = 300;
  world in{config, vocab};
  REQUIRE(in.submit(request_of(1, 2, 12)));
  REQUIRE(next_step(in));
  for (std::uint64_t id = 100; id < 103; ++id)
    REQUIRE(in.submit(request_of(id, 120)));
  REQUIRE(in.submit(request_of(103, 700)));
  // Two prompts whole, and none that would be cut.
  CHECK(row_sizes(*next_step(in)) == std::vector<std::uint32_t>{1, 120, 120});
  REQUIRE(in.step_worker());
  CHECK(row_sizes(*next_step(in)) == std::vector<std::uint32_t>{1, 1, 1, 120});
  REQUIRE(in.step_worker());
  // A longer one comes by itself, whole.
  CHECK(row_sizes(*next_step(in)).back() == 700);
  in.drain(200);
  in.check_home();
}

TEST_CASE("a backlog of prompts fills whole steps", "[sched]") {
  auto config = roomy();
  config.max_num_seqs = 32;
  config.max_num_batched_tokens = 1024;
  config.max_model_len = 2048;
  config.num_blocks = 4096;
  world in{config, vocab};
  begin_answers(in, 16);
  // More than there are places for: none of them is held back, though sixteen answers run.
  for (std::uint64_t id = 100; id < 117; ++id)
    REQUIRE(in.submit(request_of(id, 100)));
  const auto first = next_step(in);
  const auto rows = row_sizes(*first);
  CHECK(std::accumulate(rows.begin(), rows.end(), 0U) == 1024);
  in.drain(200);
  in.check_home();
}

TEST_CASE("beside many answers a backlog of prompts comes in steps of both", "[sched]") {
  auto config = roomy();
  config.max_num_batched_tokens = 8192;
  config.max_model_len = 2048;
  config.num_blocks = 16384;
  config.max_waiting = 512;
  // Where fewer than half of all answers run, full steps, as full as admission makes them; beside
  // more, by whether prompts are as long as their answers may be or longer, and all have a place.
  struct load {
    std::uint32_t prompts, in_tokens, out_tokens, places, least_rows, most_rows;
  };
  for (const auto& [prompts, in_tokens, out_tokens, places, least_rows, most_rows] :
       {load{200, 600, 600, 256, 4097, 8192}, load{200, 90, 90, 128, 1024, 1024},
        load{64, 600, 600, 128, 2048, 2048}, load{64, 601, 600, 128, 1024, 1024},
        load{200, 900, 100, 256, 4096, 4096}}) {
    CAPTURE(prompts, in_tokens, out_tokens, places);
    config.max_num_seqs = places;
    world in{config, vocab};
    begin_answers(in, 64);
    for (std::uint64_t id = 100; id < 100 + prompts; ++id)
      REQUIRE(in.submit(request_of(id, in_tokens, out_tokens)));
    std::uint32_t most = 0;
    for (int step = 0; step < 12; ++step) {
      const auto sizes = row_sizes(*next_step(in));
      most = std::max(most, std::accumulate(sizes.begin(), sizes.end(), 0U));
      CHECK(std::count(sizes.begin(), sizes.end(), 1U) >= 64);
      REQUIRE(in.step_worker());
    }
    CHECK(most >= least_rows);
    CHECK(most <= most_rows);
    in.drain(4000);
    in.check_home();
  }
}

TEST_CASE("beside very many answers a prompt comes in steps of twice as many rows", "[sched]") {
  auto config = roomy();
  config.max_num_seqs = 256;
  config.max_num_batched_tokens = 8192;
  config.max_model_len = 2048;
  config.num_blocks = 4096;
  world in{config, vocab};
  begin_answers(in, 200);
  REQUIRE(in.submit(request_of(300, 180)));
  // 203 rows would do, and 400 are filled up to 512.
  CHECK(row_sizes(*next_step(in)).back() == 180);
  in.drain(200);
  in.check_home();
}

TEST_CASE("a sequence is let in where there is room to go on", "[sched]") {
  auto config = roomy();
  config.num_blocks = 100;
  config.max_num_seqs = 16;
  world in{config, vocab};
  // 400 positions for ten answers that want 60 each, and have 20 to begin with.
  for (std::uint64_t id = 1; id <= 10; ++id)
    REQUIRE(in.submit(request_of(id, 20, 40)));
  in.drain(2000);
  in.check_home();
  CHECK(in.ends[finish_reason::length] == 10);
  // Four of them do not fit in the end. Who went comes back when others are done, and stays.
  CHECK(in.sched.stats().preemptions <= 4);
}

TEST_CASE("long prompts are cut at the threshold", "[sched]") {
  auto config = roomy();
  config.long_prefill_token_threshold = 8;
  world in{config, vocab};
  REQUIRE(in.submit(request_of(1, 20)));
  REQUIRE(in.submit(request_of(2, 5)));
  CHECK(row_sizes(*next_step(in)) == std::vector<std::uint32_t>{8, 5});
  in.drain(100);
}

TEST_CASE("without chunks a prompt waits until it fits whole", "[sched]") {
  auto config = roomy();
  config.enable_chunked_prefill = false;
  config.max_num_batched_tokens = 128;
  world in{config, vocab};
  REQUIRE(in.submit(request_of(1, 100)));
  REQUIRE(in.submit(request_of(2, 60)));
  REQUIRE(in.submit(request_of(3, 2)));
  // Strict order: the third does not pass the second.
  CHECK(row_ids(*next_step(in)) == std::vector<std::uint64_t>{1});
  CHECK(row_sizes(*next_step(in)) == std::vector<std::uint32_t>{1, 60, 2});
  in.drain(100);
}

TEST_CASE("no more sequences than max_num_seqs", "[sched]") {
  auto config = roomy();
  config.max_num_seqs = 2;
  world in{config, vocab};
  for (std::uint64_t id = 1; id <= 3; ++id)
    REQUIRE(in.submit(request_of(id, 3)));
  CHECK(row_ids(*next_step(in)) == std::vector<std::uint64_t>{1, 2});
  CHECK(in.sched.stats().waiting == 1);
  in.drain(100);
}

TEST_CASE("equal prompts in one step are computed once", "[sched]") {
  world in{roomy(), vocab};
  auto twin = request_of(2, 14);
  twin.prompt = request_of(1, 14).prompt;
  auto salted = request_of(3, 3);
  salted.prompt = {twin.prompt.begin(), twin.prompt.begin() + 5};
  salted.cache_salt = "somebody else";
  REQUIRE(in.submit(request_of(1, 14)));
  REQUIRE(in.submit(twin));
  REQUIRE(in.submit(salted));
  const auto step = next_step(in);
  CHECK(row_sizes(*step) == std::vector<std::uint32_t>{14, 2, 5});
  CHECK(step->added[0].blocks[2] == step->added[1].blocks[2]);
  in.drain(100);
  in.check_home();
}

TEST_CASE("no row is planned beyond the surely last token", "[sched]") {
  world in{roomy(), vocab};
  REQUIRE(in.submit(request_of(1, 3, 2)));
  REQUIRE(next_step(in));
  REQUIRE(next_step(in)); // the placeholder yields the second token
  REQUIRE(in.step_worker());
  CHECK_FALSE(next_step(in));
  in.drain(100);
  CHECK(in.ends[finish_reason::length] == 1);
}

TEST_CASE("a stop that is found late drops the token behind it", "[sched]") {
  world in{roomy(), vocab};
  auto request = request_of(1, 3, 50);
  const auto answer = decode_alone(request.prompt, request.sampling, 128, vocab);
  request.sampling.stop_token_ids = {answer.tokens[0]};
  REQUIRE(in.submit(request));
  REQUIRE(next_step(in));
  REQUIRE(next_step(in));
  in.drain(100);
  CHECK(in.ends[finish_reason::stop] == 1);
  in.check_home();
}

TEST_CASE("reasons to stop come in vLLM's order", "[sched]") {
  const auto answer =
      decode_alone(request_of(1, 3).prompt, request_of(1, 3, 1).sampling, 128, vocab);
  auto request = request_of(1, 3, 1);
  request.sampling.eos_token_ids = {answer.tokens[0]};
  SECTION("eos before length") {
    request.sampling.ignore_eos = false;
    world in{roomy(), vocab};
    REQUIRE(in.submit(request));
    in.drain(100);
    CHECK(in.ends[finish_reason::stop] == 1);
  }
  SECTION("ignore_eos") {
    world in{roomy(), vocab};
    REQUIRE(in.submit(request));
    in.drain(100);
    CHECK(in.ends[finish_reason::length] == 1);
  }
}

TEST_CASE("an answer ends at max_model_len", "[sched]") {
  world in{roomy(), vocab};
  REQUIRE(in.submit(request_of(1, 126, 1000)));
  const auto& expected = in.live.at(request_id{1}).expected;
  CHECK(expected.tokens.size() == 2);
  in.drain(100);
  CHECK(in.ends[finish_reason::length] == 1);
}

TEST_CASE("a submission that cannot be served is refused by name", "[sched]") {
  auto config = roomy();
  config.max_waiting = 1;
  config.vocab_size = vocab;
  world in{config, vocab};
  const auto refused = [&](const submission& request) { return in.submit(request).error(); };
  CHECK(refused(request_of(1, 0)).code == errc::invalid_argument);
  const auto long_one = refused(request_of(1, 128));
  CHECK(long_one.code == errc::invalid_argument);
  CHECK(long_one.note.find("128 tokens") != std::string::npos);
  CHECK(long_one.note.find("127") != std::string::npos);
  CHECK(refused(request_of(1, 3, 0)).code == errc::invalid_argument);
  auto strange = request_of(1, 3);
  strange.prompt[1] = vocab;
  CHECK(refused(strange).code == errc::invalid_argument);
  strange.prompt[1] = -1;
  CHECK(refused(strange).code == errc::invalid_argument);
  auto timed = request_of(1, 3);
  timed.timeout = std::chrono::milliseconds{-1};
  CHECK(refused(timed).code == errc::invalid_argument);
  timed.timeout = std::chrono::milliseconds::max();
  CHECK(in.submit(timed));
  CHECK(refused(request_of(1, 3)).code == errc::conflict);
  CHECK(refused(request_of(2, 3)).code == errc::busy);
  in.drain(100);
}

TEST_CASE("what could never fit the pool is refused with the numbers", "[sched]") {
  auto config = roomy();
  config.num_blocks = 8;
  world in{config, vocab};
  const auto refused = in.submit(request_of(1, 20, 20)).error();
  CHECK(refused.code == errc::pool_exhausted);
  CHECK(refused.note.find("40 tokens") != std::string::npos);
  CHECK(refused.note.find("at most 33 tokens") != std::string::npos);
  REQUIRE(in.submit(request_of(1, 20, 13)));
  in.drain(200);
  CHECK(in.ends[finish_reason::length] == 1);
  in.check_home();
}

TEST_CASE("when the pool is exhausted the last gives way, and comes back", "[sched]") {
  auto config = roomy();
  config.num_blocks = 12;
  config.max_model_len = 40;
  config.enable_prefix_caching = false;
  world in{config, vocab};
  for (std::uint64_t id = 1; id <= 3; ++id)
    REQUIRE(in.submit(request_of(id, 10, 20)));
  in.drain(1000);
  CHECK(in.sched.stats().preemptions > 0);
  CHECK(in.ended == std::vector{request_id{1}, request_id{2}, request_id{3}});
  in.check_home();
}

TEST_CASE("under the priority policy the lower number goes first", "[sched]") {
  auto config = roomy();
  config.policy = scheduling_policy::priority;
  config.max_num_seqs = 1;
  world in{config, vocab};
  for (std::uint64_t id = 1; id <= 3; ++id) {
    auto request = request_of(id, 3);
    request.priority = static_cast<std::int32_t>(10 - id);
    REQUIRE(in.submit(request));
  }
  in.drain(100);
  CHECK(in.ended == std::vector{request_id{3}, request_id{2}, request_id{1}});
}

TEST_CASE("a request can be cancelled in every state", "[sched]") {
  for (int events = 0; events < 12; ++events) {
    world in{roomy(), vocab};
    REQUIRE(in.submit(request_of(1, 40, 30)));
    for (int i = 0; i < events; ++i) {
      if (!in.step_kv() && !in.step_answer() && !in.step_plan())
        (void)in.step_worker();
    }
    in.cancel(request_id{1});
    in.cancel(request_id{1});
    CHECK(in.ends[finish_reason::abort] == 1);
    in.drain(100);
    in.check_home();
  }
}

TEST_CASE("the requests of a hub that is gone end, those of another go on", "[sched]") {
  world in{roomy(), vocab};
  for (std::uint64_t id = 1; id <= 4; ++id) {
    auto request = request_of(id, 20, 10);
    request.sink.hub = hub_id{static_cast<std::uint32_t>(1 + id % 2)};
    REQUIRE(in.submit(request));
  }
  REQUIRE(next_step(in));
  in.cancel_hub(hub_id{2});
  CHECK(in.ends[finish_reason::abort] == 2);
  in.drain(100);
  CHECK(in.ends[finish_reason::length] == 2);
  in.check_home();
}

TEST_CASE("an id may come again while its old rows are in flight", "[sched]") {
  world in{roomy(), vocab};
  REQUIRE(in.submit(request_of(1, 5, 10)));
  REQUIRE(next_step(in));
  in.cancel(request_id{1});
  auto again = request_of(1, 9, 3);
  again.attempt = 2;
  REQUIRE(in.submit(again));
  in.drain(100);
  CHECK(in.ends[finish_reason::length] == 1);
  in.check_home();
}

TEST_CASE("a deadline ends its request", "[sched]") {
  world in{roomy(), vocab};
  auto request = request_of(1, 5, 100);
  request.timeout = std::chrono::milliseconds{50};
  REQUIRE(in.submit(request));
  REQUIRE(in.submit(request_of(2, 5)));
  CHECK(in.sched.next_deadline() == in.now + std::chrono::milliseconds{50});
  REQUIRE(next_step(in));
  in.now += std::chrono::milliseconds{49};
  in.expire();
  CHECK(in.live.size() == 2);
  in.now += std::chrono::milliseconds{1};
  in.expire();
  CHECK(in.ends[finish_reason::error] == 1);
  CHECK_FALSE(in.sched.next_deadline());
  in.drain(100);
  in.check_home();
}

TEST_CASE("a resumed request goes on behind what was delivered", "[sched]") {
  world in{roomy(), vocab};
  auto request = request_of(1, 5, 6);
  const auto answer = decode_alone(request.prompt, request.sampling, 128, vocab);
  request.attempt = 2;
  request.delivered.assign(answer.tokens.begin(), answer.tokens.begin() + 4);
  REQUIRE(in.submit(request));
  const auto step = next_step(in);
  REQUIRE(step);
  CHECK(step->added[0].tokens.size() == 9);
  CHECK(step->added[0].prompt_tokens == 5);
  in.drain(100);
  CHECK(in.ends[finish_reason::length] == 1);
}

TEST_CASE("a resumed request stands before those that never ran", "[sched]") {
  auto one_at_a_time = roomy();
  one_at_a_time.max_num_seqs = 1;
  world in{one_at_a_time, vocab};
  REQUIRE(in.submit(request_of(1, 5)));
  REQUIRE(in.submit(request_of(2, 5)));
  for (std::uint64_t id : {3, 4}) {
    auto resumed = request_of(id, 5);
    resumed.delivered = decode_alone(resumed.prompt, resumed.sampling, 128, vocab).tokens;
    resumed.delivered.resize(1);
    REQUIRE(in.submit(resumed));
  }
  in.drain(400);
  CHECK(in.ended == std::vector{request_id{3}, request_id{4}, request_id{1}, request_id{2}});
}

TEST_CASE("a resumed answer that was complete ends at once", "[sched]") {
  world in{roomy(), vocab};
  auto request = request_of(1, 5, 3);
  request.delivered = decode_alone(request.prompt, request.sampling, 128, vocab).tokens;
  REQUIRE(in.submit(request));
  CHECK(in.ends[finish_reason::length] == 1);
  CHECK(in.sched.idle());
}

TEST_CASE("a row that fails ends its request alone, sharers start anew", "[sched]") {
  world in{roomy(), vocab};
  auto twin = request_of(2, 14);
  twin.prompt = request_of(1, 14).prompt;
  REQUIRE(in.submit(request_of(1, 14)));
  REQUIRE(in.submit(twin));
  REQUIRE(in.submit(request_of(3, 4)));
  REQUIRE(next_step(in));
  REQUIRE(next_step(in));
  // The twin's own row does not fail: what it read is known to be bad all the same.
  REQUIRE(in.step_worker({request_id{1}}));
  CHECK(in.ends[finish_reason::error] == 1);
  in.drain(100);
  in.check_home();
}

TEST_CASE("a failed step ends everybody who runs, and the house goes on", "[sched]") {
  auto config = roomy();
  config.max_num_seqs = 2;
  world in{config, vocab};
  REQUIRE(in.submit(request_of(1, 14)));
  REQUIRE(in.submit(request_of(2, 14)));
  // It waits for its turn with blocks of the first, whose contents will be lost.
  auto waits = request_of(3, 14);
  waits.prompt = request_of(1, 14).prompt;
  REQUIRE(next_step(in));
  REQUIRE(in.step_worker());
  REQUIRE(next_step(in));
  REQUIRE(next_step(in));
  CHECK(in.pool.stats().cached > 0);
  REQUIRE(in.submit(waits));
  REQUIRE(in.step_kv());
  REQUIRE(in.step_answer());
  in.fail_step(true);
  CHECK(in.ends[finish_reason::error] == 2);
  auto again = request_of(1, 14);
  again.prompt = request_of(4, 14).prompt;
  REQUIRE(in.submit(again));
  in.hear_stale_step();
  in.drain(100);
  CHECK(in.ends[finish_reason::length] == 2);
  CHECK(in.sched.stats().prompt_tokens_cached == 0);
  in.check_home();
}

TEST_CASE("timings and counters tell what happened", "[sched]") {
  scheduler_config config = roomy();
  scheduler sched{config};
  block_pool pool{config.num_blocks, config.block_size};
  time_point now{};
  REQUIRE(sched.submit(request_of(1, 5, 2), now));
  now += std::chrono::milliseconds{3};
  sched.admitted(pool.admit(sched.take_actions().admits.at(0)), now);
  const auto first = sched.plan(now);
  REQUIRE(first);
  now += std::chrono::milliseconds{5};
  step_result done{.id = first->id, .tokens = {{request_id{1}, 7}}, .failed = {}, .timings = {}};
  sched.step_done(done, now);
  const auto second = sched.plan(now);
  REQUIRE(second);
  now += std::chrono::milliseconds{7};
  done.id = second->id;
  sched.step_done(done, now);
  const auto ended = sched.take_finished();
  REQUIRE(ended.size() == 1);
  CHECK(ended[0].queued == std::chrono::milliseconds{3});
  CHECK(ended[0].prefill == std::chrono::milliseconds{5});
  CHECK(ended[0].decode == std::chrono::milliseconds{7});
  CHECK(ended[0].generated_tokens == 2);
  CHECK(sched.stats().generation_tokens == 2);
  CHECK(sched.stats().prompt_tokens == 5);
  CHECK(sched.stats().steps == 2);
  CHECK(sched.idle());
}
