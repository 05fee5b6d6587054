#include "engine/exec/cuda/cuda_executor.hpp"
#include "tests/bench/closed_loop.hpp"
#include "tests/bench/cuda_bench.hpp"

#include <fstream>

// Closed loops of prompts and answers through the scheduler, the pool of blocks and the CUDA
// executor, without actors and HTTP: what the policy of the scheduler and the device make of a
// load. Each load is run once for each number of steps over which prompts may be spread
// (scheduler_config::spread_steps; 1 spreads none), and with --lanes once more for each way to run
// answers and prompts: in "one" lane, as it is "reckoned", or with so many multiprocessors for
// answers; --tokens are budgets of a step.
//
//   bench_cuda_loads [--lanes one,reckoned,24] [--tokens 8192,1024] SPREAD,SPREAD...
//   IN/OUT:REQUESTS@AT_A_TIME...
namespace {

using namespace troupe;
using namespace troupe::engine;
using namespace troupe::bench;

class cuda_device final : public load_device {
public:
  explicit cuda_device(cuda::cuda_executor& run) : run_{run} {}
  void begin(const step_batch& step) override {
    begin_step(run_, step);
    in_lanes += run_.last_lanes() == nullptr ? 0 : 1;
  }
  step_result collect(step_id step) override { return must(run_.collect(step)); }
  [[nodiscard]] time_point now() const override { return std::chrono::steady_clock::now(); }

  /// Steps that ran so.
  std::uint32_t in_lanes = 0;

private:
  cuda::cuda_executor& run_;
};

/// shortcuts::lanes for each name in "one,reckoned,24".
std::vector<std::pair<std::string, int>> lanes_of(const std::string& text) {
  std::vector<std::pair<std::string, int>> found;
  for (const std::string& name : names(text))
    found.emplace_back(name, name == "one"        ? kernels::cuda::no_lanes
                             : name == "reckoned" ? kernels::cuda::reckoned_lanes
                                                  : std::atoi(name.c_str()));
  return found;
}

struct policy {
  std::uint32_t spread = 1;
  /// Tokens of a step; 0 for as many as the executor takes.
  std::uint32_t budget = 0;
};

void run_load(cuda::cuda_executor& run, const load_shape& load, const policy& by,
              const std::string& title) {
  run.reset();
  const executor_description& about = run.describe();
  scheduler_config config;
  config.block_size = about.block_size;
  config.num_blocks = about.num_blocks;
  config.max_model_len = about.max_model_len;
  config.vocab_size = about.vocab_size;
  config.max_num_seqs = about.max_num_seqs;
  config.max_num_batched_tokens = by.budget == 0 ? about.max_num_batched_tokens : by.budget;
  config.max_waiting = load.requests;
  config.spread_steps = by.spread;
  cuda_device device{run};
  closed_loop{device, load, config}.go(title);
  if (device.in_lanes > 0)
    fmt::print("  {} of them in lanes\n", device.in_lanes);
}

} // namespace

int main(int argc, char** argv) {
  std::vector<std::pair<std::string, int>> ways{{"", kernels::cuda::no_lanes}};
  std::vector<std::uint32_t> budgets{0};
  int first = 1;
  for (; first + 1 < argc && std::string_view{argv[first]}.starts_with("--"); first += 2) {
    if (std::string_view{argv[first]} == "--tokens") {
      budgets = numbers(argv[first + 1]);
      continue;
    }
    ways = lanes_of(argv[first + 1]);
    kernels::cuda::shortcuts_taken().lanes = kernels::cuda::reckoned_lanes;
  }
  const auto device = must(cuda::open_device(0));
  const auto folder = std::filesystem::temp_directory_path() / "troupe-bench-llama8b";
  std::filesystem::create_directories(folder);
  std::ofstream{folder / "config.json"} << configs.at("llama8b");
  cuda::cuda_executor run{options_of(folder), device};
  must(run.load({}));
  for (int i = first + 1; i < argc; ++i) {
    const auto load = load_shape::of(argv[i]);
    if (!load) {
      fmt::print(stderr, "bench_cuda_loads: '{}' is not IN/OUT:REQUESTS@AT_A_TIME\n", argv[i]);
      return 2;
    }
    for (const std::uint32_t spread : numbers(argv[first]))
      for (const std::uint32_t budget : budgets)
        for (const auto& [name, lanes] : ways) {
          kernels::cuda::shortcuts_taken().lanes = lanes;
          std::string title = fmt::format("{} spread {:2}", argv[i], spread);
          title += budget == 0 ? "" : fmt::format(" tokens {}", budget);
          title += name.empty() ? "" : fmt::format(" lanes {}", name);
          run_load(run, *load, {spread, budget}, title);
        }
  }
  return 0;
}
