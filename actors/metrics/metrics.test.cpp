#include "actors/metrics/metrics.hpp"
#include "actors/metrics/buckets.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <chrono>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

using namespace troupe;
using namespace troupe::actors;

namespace {

/// The value behind the one line that begins with `series `, or nothing.
std::string value_of(const std::string& text, const std::string& series) {
  const auto at = text.find("\n" + series + " ");
  if (at == std::string::npos)
    return "absent";
  const auto from = at + series.size() + 2;
  return text.substr(from, text.find('\n', from) - from);
}

/// The lines in an order of their own: a family's series have none.
std::vector<std::string> lines_of(const metrics& m) {
  std::istringstream text{m.render()};
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);)
    lines.push_back(line);
  std::sort(lines.begin(), lines.end());
  return lines;
}

} // namespace

TEST_CASE("the scheduler's counters are exported by their differences") {
  metrics m;
  m.open_replica("bard", "1");
  engine::scheduler_stats s;
  s.running = 3;
  s.waiting = 2;
  s.blocks_used = 25;
  s.blocks_total = 100;
  s.prompt_tokens = 40;
  s.prompt_tokens_cached = 16;
  s.generation_tokens = 7;
  m.set_scheduler("bard", "1", s);
  s.prompt_tokens = 50;
  s.generation_tokens = 9;
  m.set_scheduler("bard", "1", s);
  const auto text = m.render();
  const std::string labels = "{engine=\"1\",model_name=\"bard\"";
  CHECK(value_of(text, "vllm:num_requests_running" + labels + "}") == "3");
  CHECK(value_of(text, "vllm:num_requests_waiting" + labels + "}") == "2");
  CHECK(value_of(text, "vllm:num_requests_waiting_by_reason" + labels + ",reason=\"capacity\"}") ==
        "2");
  CHECK(value_of(text, "vllm:kv_cache_usage_perc" + labels + "}") == "0.25");
  CHECK(value_of(text, "vllm:gpu_cache_usage_perc" + labels + "}") == "0.25");
  CHECK(value_of(text, "vllm:prompt_tokens_total" + labels + "}") == "50");
  CHECK(value_of(text, "vllm:prompt_tokens_cached_total" + labels + "}") == "16");
  CHECK(value_of(text, "vllm:generation_tokens_total" + labels + "}") == "9");
  CHECK(value_of(text, "vllm:prompt_tokens_by_source_total" + labels +
                           ",source=\"local_compute\"}") == "34");
  CHECK(value_of(text, "vllm:prompt_tokens_by_source_total" + labels +
                           ",source=\"local_cache_hit\"}") == "16");
}

TEST_CASE("a restarted scheduler never makes a counter go back") {
  metrics m;
  m.open_replica("bard", "1");
  engine::scheduler_stats s;
  s.generation_tokens = 100;
  m.set_scheduler("bard", "1", s);
  s.generation_tokens = 5;
  m.set_scheduler("bard", "1", s);
  CHECK(value_of(m.render(), "vllm:generation_tokens_total{engine=\"1\",model_name=\"bard\"}") ==
        "105");
}

TEST_CASE("an ended request fills the histograms and its finish reason") {
  metrics m;
  m.open_replica("bard", "1");
  engine::request_timing t;
  t.finish = engine::finish_reason::stop;
  t.prompt_tokens = 12;
  t.generated_tokens = 5;
  t.queued = std::chrono::milliseconds{10};
  t.prefill = std::chrono::milliseconds{30};
  t.decode = std::chrono::milliseconds{400};
  m.observe_request("bard", "1", t);
  const auto text = m.render();
  const std::string labels = "{engine=\"1\",model_name=\"bard\"";
  CHECK(value_of(text, "vllm:request_success_total{engine=\"1\",finished_reason=\"stop\","
                       "model_name=\"bard\"}") == "1");
  CHECK(value_of(text, "vllm:request_queue_time_seconds_count" + labels + "}") == "1");
  CHECK(value_of(text, "vllm:request_time_per_output_token_seconds_bucket" + labels +
                           ",le=\"0.1\"}") == "1");
  CHECK(value_of(text, "vllm:request_time_per_output_token_seconds_bucket" + labels +
                           ",le=\"0.075\"}") == "0");
  CHECK(value_of(text, "vllm:request_prompt_tokens_bucket" + labels + ",le=\"20\"}") == "1");
  CHECK(value_of(text, "vllm:request_prompt_tokens_bucket" + labels + ",le=\"10\"}") == "0");
}

TEST_CASE("the token buckets end at the limit of the model") {
  CHECK(token_count_buckets(1) == std::vector<double>{1});
  CHECK(token_count_buckets(256) == std::vector<double>{1, 2, 5, 10, 20, 50, 100, 200});
  metrics m;
  m.open_replica("bard", "1");
  replica_facts facts;
  facts.max_model_len = 256;
  facts.block_size = 16;
  facts.num_blocks = 64;
  facts.num_host_blocks = 32;
  m.set_replica("bard", "1", facts);
  m.observe_max_tokens("bard", 40);
  const auto text = m.render();
  CHECK(text.find(
            "vllm:request_params_max_tokens_bucket{engine=\"0\",model_name=\"bard\",le=\"200\"}") !=
        std::string::npos);
  CHECK(text.find("le=\"500\"} 1") == std::string::npos);
  CHECK(text.find("num_gpu_blocks=\"64\"") != std::string::npos);
  CHECK(text.find("num_cpu_blocks=\"32\"") != std::string::npos);
}

TEST_CASE("latencies, steps and the edge's own numbers appear") {
  metrics m;
  m.open_replica("bard", "1");
  m.observe_first_token("bard", 0.02);
  m.observe_inter_token("bard", 0.005);
  m.observe_e2e("bard", 0.9);
  m.observe_step("bard", "1", {std::chrono::microseconds{20}, std::chrono::microseconds{2000}, {}},
                 17);
  m.actor_restarted("scheduler");
  m.set_mailbox("router", 4);
  m.count_migrations(1, 0);
  m.http_connections(2);
  m.http_request("/v1/completions", 200);
  m.slow_reader_cut();
  const auto text = m.render();
  const std::string front = "{engine=\"0\",model_name=\"bard\"";
  CHECK(value_of(text, "vllm:time_to_first_token_seconds_bucket" + front + ",le=\"0.02\"}") == "1");
  CHECK(value_of(text, "vllm:inter_token_latency_seconds_count" + front + "}") == "1");
  CHECK(value_of(text, "vllm:time_per_output_token_seconds_count" + front + "}") == "1");
  CHECK(value_of(text, "vllm:e2e_request_latency_seconds_count" + front + "}") == "1");
  CHECK(value_of(text, "vllm:request_params_n_bucket" + front + ",le=\"1\"}") == "1");
  CHECK(text.find(
            "vllm:iteration_tokens_total_bucket{engine=\"1\",model_name=\"bard\",le=\"32\"} 1") !=
        std::string::npos);
  CHECK(value_of(text, "troupe:actor_restarts_total{actor=\"scheduler\"}") == "1");
  CHECK(value_of(text, "troupe:actor_mailbox_depth{actor=\"router\"}") == "4");
  CHECK(value_of(text, "troupe:migrations_total{exact=\"true\"}") == "1");
  CHECK(value_of(text, "troupe:migrations_total{exact=\"false\"}") == "0");
  CHECK(value_of(text, "troupe:http_connections") == "2");
  CHECK(value_of(text, "troupe:http_requests_total{path=\"/v1/completions\",status=\"200\"}") ==
        "1");
  CHECK(value_of(text, "troupe:slow_readers_cut_total") == "1");
}

TEST_CASE("a replica that is no more leaves nothing, and others stay") {
  metrics m;
  const auto fill = [&m](const char* engine) {
    engine::request_timing t;
    t.finish = engine::finish_reason::stop;
    t.generated_tokens = 5;
    m.set_replica("bard", engine, {.block_size = 16, .num_blocks = 64, .max_model_len = 256});
    m.set_scheduler("bard", engine, {.generation_tokens = 9});
    m.observe_step("bard", engine, {std::chrono::microseconds{20}, {}, {}}, 17);
    m.observe_request("bard", engine, t);
    m.observe_request("bard", engine, t);
  };
  const auto empty = lines_of(m);
  fill("1");
  CHECK(lines_of(m) == empty);
  m.open_replica("bard", "1");
  fill("1");
  const auto one = lines_of(m);
  CHECK(one.size() > empty.size() + 100);
  m.open_replica("bard", "2");
  m.open_replica("bard", "2");
  fill("2");
  CHECK(lines_of(m).size() > one.size() + 100);
  m.close_replica("bard", "2");
  fill("2");
  CHECK(lines_of(m) == one);
  m.close_replica("bard", "1");
  m.close_replica("bard", "7");
  CHECK(lines_of(m) == empty);
}

TEST_CASE("a router's numbers are counted on or set") {
  metrics m;
  m.update_router({.policy = "prefix",
                   .decisions = 5,
                   .index_gaps = 1,
                   .snapshots = 2,
                   .index_blocks = 70,
                   .index_bytes = 4096,
                   .parked = 3});
  m.update_router({.policy = "prefix", .decisions = 2, .index_blocks = 60, .index_bytes = 4096});
  m.observe_decision("prefix", 0.00002);
  const auto text = m.render();
  CHECK(value_of(text, "troupe:router_decisions_total{policy=\"prefix\"}") == "7");
  CHECK(value_of(text, "troupe:router_index_gaps_total") == "1");
  CHECK(value_of(text, "troupe:router_snapshots_total") == "2");
  CHECK(value_of(text, "troupe:router_index_blocks") == "60");
  CHECK(value_of(text, "troupe:router_index_bytes") == "4096");
  CHECK(value_of(text, "troupe:router_parked_streams") == "0");
  const std::string bucket = "troupe:router_decision_seconds_bucket{policy=\"prefix\",le=";
  CHECK(value_of(text, bucket + "\"1e-05\"}") == "0");
  CHECK(value_of(text, bucket + "\"3e-05\"}") == "1");
}

TEST_CASE("threads count together without loss") {
  metrics m;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&m] {
      for (int i = 0; i < 500; ++i)
        m.http_request("/health", 200);
    });
  for (auto& t : threads)
    t.join();
  CHECK(value_of(m.render(), "troupe:http_requests_total{path=\"/health\",status=\"200\"}") ==
        "2000");
}
