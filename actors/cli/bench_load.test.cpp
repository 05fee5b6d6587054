#include "actors/cli/bench_load.hpp"

#include <catch2/catch.hpp>

#include <set>
#include <string>

using namespace troupe;
using namespace troupe::cli;

TEST_CASE("a load is read from its short form") {
  const auto all = parse_shape("128/64:2048");
  REQUIRE(all);
  CHECK(all->input == 128);
  CHECK(all->output == 64);
  CHECK(all->requests == 2048);
  CHECK(all->concurrency == 2048);
  CHECK(parse_shape("1/2:3@2")->concurrency == 2);
  CHECK(parse_shape("1/2:3@9")->concurrency == 3);
  for (const auto* bad : {"", "1", "1/2", "1/2:", "/2:3", "1/:3", "0/2:3", "1/0:3", "1/2:0",
                          "1/2:3@", "1/2:3@0", "1/2:3x", "-1/2:3", "1/2:99999999999"})
    CHECK(parse_shape(bad).error().code == errc::invalid_argument);
}

TEST_CASE("prompts are random, seeded and inside the vocabulary") {
  const load_shape shape{.input = 300, .output = 1, .requests = 2, .concurrency = 2, .seed = 5};
  const auto prompt = random_prompt(shape, 0, 40);
  REQUIRE(prompt.size() == 300);
  for (const token_id id : prompt)
    CHECK((id >= 10 && id < 40));
  CHECK(std::set<token_id>(prompt.begin(), prompt.end()).size() == 30);
  CHECK(random_prompt(shape, 0, 40) == prompt);
  CHECK(random_prompt(shape, 1, 40) != prompt);
  load_shape other = shape;
  other.seed = 6;
  CHECK(random_prompt(other, 0, 40) != prompt);
  CHECK(random_prompt(shape, 0, 1) == std::vector<token_id>(300, 0));
}

TEST_CASE("a run becomes figures") {
  const load_shape shape{.input = 10, .output = 3, .requests = 2, .concurrency = 2};
  load_times times{.seconds = 2, .answers = {}};
  times.answers.push_back({.first = 0.1, .last = 0.5, .tokens = 3, .gaps = {0.1, 0.3}});
  times.answers.push_back({.first = 0.3, .last = 0.5, .tokens = 3, .gaps = {0.1, 0.1}});
  const load_summary s = summarize(shape, times);
  CHECK(s.output_tokens == 6);
  CHECK(s.output_tokens_per_s == Approx(3));
  CHECK(s.total_tokens_per_s == Approx(13));
  CHECK(s.requests_per_s == Approx(1));
  CHECK(s.ttft.median_ms == Approx(200));
  CHECK(s.ttft.p99_ms == Approx(300));
  CHECK(s.tpot.median_ms == Approx(150));
  CHECK(s.itl.median_ms == Approx(100));
  CHECK(s.itl.p99_ms == Approx(300));
  CHECK(s.e2e.median_ms == Approx(500));
  CHECK(spread_of({}).median_ms == 0);
  CHECK(spread_of({0.004, 0.001, 0.003}).median_ms == Approx(3));
}

TEST_CASE("a series of metrics is added up by its name and label") {
  const std::string text = "# HELP a_sum x\na_sum{phase=\"f\",m=\"1\"} 2.5\na_sum{phase=\"f\"} 1\n"
                           "a_sum{phase=\"g\"} 8\na_sums{phase=\"f\"} 16\n";
  CHECK(metric_sum(text, "a_sum", "phase=\"f\"") == Approx(3.5));
  CHECK(metric_sum(text, "a_sum", "phase=\"h\"") == 0);
  CHECK(metric_sum("", "a_sum", "") == 0);
}
