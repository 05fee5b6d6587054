#include "engine/exec/cuda/cuda_executor.hpp"
#include "tests/bench/closed_loop.hpp"
#include "tests/bench/cuda_bench.hpp"

#include <fstream>

// Closed loops of prompts and answers through the scheduler, the pool of blocks and the CUDA
// executor, without actors and HTTP: what the policy of the scheduler and the device make of a
// load. Each load is run once for each number of steps over which prompts may be spread
// (scheduler_config::spread_steps; 1 spreads none) and each budget of a step's tokens.
//
//   bench_cuda_loads [--tokens 8192,1024] [--swap GIB] SPREAD,SPREAD...
//                    IN/OUT:REQUESTS@AT_A_TIME...
namespace {

using namespace troupe;
using namespace troupe::engine;
using namespace troupe::bench;

class cuda_device final : public load_device {
public:
  explicit cuda_device(cuda::cuda_executor& run) : run_{run} {}
  void begin(const step_batch& step) override { begin_step(run_, step); }
  step_result collect(step_id step) override { return must(run_.collect(step)); }
  [[nodiscard]] time_point now() const override { return std::chrono::steady_clock::now(); }

private:
  cuda::cuda_executor& run_;
};

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
  config.num_host_blocks = about.num_host_blocks;
  config.max_model_len = about.max_model_len;
  config.vocab_size = about.vocab_size;
  config.max_num_seqs = about.max_num_seqs;
  config.max_num_batched_tokens = by.budget == 0 ? about.max_num_batched_tokens : by.budget;
  config.max_waiting = load.requests;
  config.spread_steps = by.spread;
  cuda_device device{run};
  closed_loop{device, load, config}.go(title);
}

} // namespace

int main(int argc, char** argv) {
  std::vector<std::uint32_t> budgets{0};
  std::uint64_t swap_bytes = 0;
  int first = 1;
  for (; first + 1 < argc && argv[first][0] == '-'; first += 2) {
    const std::string_view name{argv[first]};
    if (name == "--tokens")
      budgets = numbers(argv[first + 1]);
    if (name == "--swap")
      swap_bytes = std::uint64_t{numbers(argv[first + 1]).at(0)} << 30U;
  }
  const auto device = must(cuda::open_device(0));
  const auto folder = std::filesystem::temp_directory_path() / "troupe-bench-llama8b";
  std::filesystem::create_directories(folder);
  std::ofstream{folder / "config.json"} << configs.at("llama8b");
  auto options = options_of(folder);
  options.swap_bytes = swap_bytes;
  cuda::cuda_executor run{std::move(options), device};
  must(run.load({}));
  for (int i = first + 1; i < argc; ++i) {
    const auto load = load_shape::of(argv[i]);
    if (!load) {
      fmt::print(stderr, "bench_cuda_loads: '{}' is not IN/OUT:REQUESTS@AT_A_TIME\n", argv[i]);
      return 2;
    }
    for (const std::uint32_t spread : numbers(argv[first]))
      for (const std::uint32_t budget : budgets) {
        std::string title = fmt::format("{} spread {:2}", argv[i], spread);
        title += budget == 0 ? "" : fmt::format(" tokens {}", budget);
        run_load(run, *load, {spread, budget}, title);
      }
  }
  return 0;
}
