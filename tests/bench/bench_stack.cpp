#include "engine/exec/cpu_executor.hpp"
#include "engine/exec/step_driver.hpp"
#include "troupe/actors/cluster.hpp"
#include "troupe/actors/messages.hpp"
#include "troupe/config/load.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <map>
#include <string>
#include <vector>

// What the actors cost: decode through router, scheduler, kv_manager and worker against the same
// executor driven by a loop, interleaved, medians of seven. Prints JSON.
//
//   bench_stack REPOSITORY_ROOT [qwen3|small]
namespace {

using namespace troupe;
using steady = std::chrono::steady_clock;

constexpr int rounds = 7;
constexpr std::string_view qwen3_config = R"({"architectures":["Qwen3ForCausalLM"],
  "hidden_size":1024,"intermediate_size":3072,"num_hidden_layers":28,"num_attention_heads":16,
  "num_key_value_heads":8,"head_dim":128,"vocab_size":151936,"max_position_embeddings":1024,
  "tie_word_embeddings":true,"rope_theta":1000000,"torch_dtype":"bfloat16"})";
constexpr std::string_view small_config = R"({"architectures":["LlamaForCausalLM"],
  "hidden_size":320,"intermediate_size":864,"num_hidden_layers":6,"num_attention_heads":5,
  "num_key_value_heads":5,"vocab_size":4096,"max_position_embeddings":1024,
  "torch_dtype":"bfloat16"})";

struct host_config : caf::actor_system_config {
  host_config() {
    actors::add_messages(*this);
    set("scheduler.policy", caf::atom("sharing"));
    set("scheduler.max-threads", std::size_t{2});
  }
};

std::vector<token_id> prompt(std::uint32_t which) {
  std::vector<token_id> ids(16);
  for (std::uint32_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<token_id>((i * 7919 + 13 + which) % 4000);
  return ids;
}

/// From when every stream has its first token to the last token of all.
struct stopwatch_state {
  std::promise<double> rate;
  std::map<request_id, bool> begun;
  std::uint32_t batch = 0;
  std::uint32_t ended = 0;
  std::uint64_t counted = 0;
  steady::time_point start;
};

actors::token_sink::behavior_type
stopwatch(actors::token_sink::stateful_pointer<stopwatch_state> self,
          const actors::router_actor& router, std::uint32_t batch, std::uint32_t tokens,
          std::promise<double> rate) {
  auto& st = actors::state(self);
  st.batch = batch;
  st.rate = std::move(rate);
  for (std::uint32_t i = 0; i < batch; ++i) {
    engine::submission request;
    request.model = "m";
    request.prompt = prompt(i);
    request.sampling.temperature = 0;
    request.sampling.max_tokens = tokens;
    request.sampling.ignore_eos = true;
    actors::ask(self, router, std::chrono::minutes{5}, actors::submit_atom::value,
                std::move(request), actors::token_sink{self})
        .then([](const actors::accepted&) {},
              [](const caf::error& why) {
                fmt::print(stderr, "bench_stack: {}\n", actors::from_caf(why).note);
                std::exit(1);
              });
  }
  return {[self](const engine::token_batch& arrived) {
    auto& s = actors::state(self);
    const bool all_began = s.begun.size() == s.batch;
    for (const auto& chunk : arrived.chunks) {
      if (all_began)
        s.counted += chunk.ids.size();
      s.begun[chunk.request] = true;
      s.ended += chunk.finish == engine::finish_reason::none ? 0 : 1;
    }
    if (!all_began && s.begun.size() == s.batch)
      s.start = steady::now();
    if (s.ended == s.batch) {
      const std::chrono::duration<double> took = steady::now() - s.start;
      s.rate.set_value(static_cast<double>(s.counted) / took.count());
      self->quit();
    }
  }};
}

double through_actors(caf::actor_system& system, const actors::cluster& running,
                      std::uint32_t batch, std::uint32_t tokens) {
  std::promise<double> rate;
  auto done = rate.get_future();
  system.spawn(stopwatch, running.router(), batch, tokens, std::move(rate));
  return done.get();
}

void must_run(engine::test::step_driver& drive) {
  if (const auto done = drive.run(); !done) {
    fmt::print(stderr, "bench_stack: {}\n", to_string(done.error()));
    std::exit(1);
  }
}

double by_a_loop(engine::executor& run, std::uint32_t batch, std::uint32_t tokens) {
  using namespace troupe::engine::test;
  step_driver drive{run};
  run.reset();
  for (std::uint32_t i = 0; i < batch; ++i) {
    drive.add(request_id{i + 1}, prompt(i), sampling_at(), blocks_for(16 + tokens + 1, 16, i * 32));
    drive.row(request_id{i + 1}, 0, 16, true);
  }
  must_run(drive);
  const auto begin = steady::now();
  for (std::uint32_t step = 0; step < tokens; ++step) {
    for (std::uint32_t i = 0; i < batch; ++i)
      drive.row(request_id{i + 1}, 16 + step, 1, true);
    must_run(drive);
  }
  return batch * tokens / std::chrono::duration<double>(steady::now() - begin).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// A repository with one random model of the shape; the tokenizer is bard's, which no figure needs.
std::filesystem::path write_repository(const std::filesystem::path& root, bool small) {
  const auto folder = std::filesystem::temp_directory_path() / "troupe_bench_stack";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder / "models" / "m" / "1");
  std::filesystem::create_directories(folder / "hf");
  std::ofstream{folder / "hf" / "config.json"} << (small ? small_config : qwen3_config);
  for (const char* file : {"tokenizer.json", "tokenizer_config.json"})
    std::filesystem::copy_file(root / "examples/models/bard/hf" / file, folder / "hf" / file);
  std::ofstream{folder / "models" / "m" / "1" / "model.json"}
      << R"({"model": ")" << (folder / "hf").string()
      << R"(", "load_format": "dummy", "max_num_seqs": 16, "max_num_batched_tokens": 512, "enable_prefix_caching": false})";
  std::ofstream{folder / "cluster.json"} << R"({"model_repository": "models"})";
  return folder;
}

} // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: bench_stack REPOSITORY_ROOT [qwen3|small]\n");
    return 2;
  }
  const bool small = argc > 2 && std::string_view{argv[2]} == "small";
  const std::uint32_t tokens = small ? 200 : 32;
  const auto folder = write_repository(argv[1], small);
  auto config = config::load_cluster(folder / "cluster.json", {});
  if (!config) {
    fmt::print(stderr, "bench_stack: {}\n", config.error().note);
    return 1;
  }
  host_config host;
  caf::actor_system system{host};
  auto running = actors::start_cluster(system, *config, {.edges = false});
  if (!running || !running->await_ready(std::chrono::minutes{5})) {
    fmt::print(stderr, "bench_stack: the cluster did not start\n");
    return 1;
  }
  engine::executor_options options;
  options.model_dir = folder / "hf";
  options.load_format = "dummy";
  options.max_num_seqs = 16;
  options.max_num_batched_tokens = 512;
  options.threads = 2;
  engine::cpu_executor alone{options};
  if (!alone.load({}))
    return 1;
  constexpr std::array<std::uint32_t, 3> batches{1, 8, 16};
  std::map<std::uint32_t, std::vector<double>> actors_rate, ratio;
  for (int round = 0; round < rounds; ++round)
    for (const auto batch : batches) {
      const double stack = through_actors(system, *running, batch, tokens);
      actors_rate[batch].push_back(stack);
      ratio[batch].push_back(stack / by_a_loop(alone, batch, tokens));
    }
  fmt::print("[\n");
  for (const auto batch : batches)
    fmt::print(
        "  {{\"name\": \"decode_{}\", \"tokens_per_s\": {:.1f}, \"times_executor\": {:.3f}}}{}\n",
        batch, median(actors_rate[batch]), median(ratio[batch]),
        batch == batches.back() ? "" : ",");
  fmt::print("]\n");
  running->stop(std::chrono::seconds{1});
  return 0;
}
