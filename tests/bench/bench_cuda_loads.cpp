#include "engine/exec/cuda/cuda_executor.hpp"
#include "tests/bench/closed_loop.hpp"
#include "tests/bench/cuda_bench.hpp"

#include <fstream>

// Closed loops of prompts and answers through the scheduler, the pool of blocks and the CUDA
// executor, without actors and HTTP: what the policy of the scheduler and the device make of a
// load. Each load is run once for each number of steps over which prompts may be spread
// (scheduler_config::spread_steps; 1 spreads none).
//
//   bench_cuda_loads SPREAD,SPREAD... IN/OUT:REQUESTS@AT_A_TIME...
namespace {

using namespace troupe;
using namespace troupe::engine;
using namespace troupe::bench;

class cuda_device final : public load_device {
public:
  explicit cuda_device(executor& run) : run_{run} {}
  void begin(const step_batch& step) override { begin_step(run_, step); }
  step_result collect(step_id step) override { return must(run_.collect(step)); }
  [[nodiscard]] time_point now() const override { return std::chrono::steady_clock::now(); }

private:
  executor& run_;
};

} // namespace

int main(int argc, char** argv) {
  const auto device = must(cuda::open_device(0));
  const auto folder = std::filesystem::temp_directory_path() / "troupe-bench-llama8b";
  std::filesystem::create_directories(folder);
  std::ofstream{folder / "config.json"} << configs.at("llama8b");
  cuda::cuda_executor run{options_of(folder), device};
  must(run.load({}));
  const executor_description& about = run.describe();
  for (int i = 2; i < argc; ++i) {
    const auto load = load_shape::of(argv[i]);
    if (!load) {
      fmt::print(stderr, "bench_cuda_loads: '{}' is not IN/OUT:REQUESTS@AT_A_TIME\n", argv[i]);
      return 2;
    }
    for (const std::uint32_t spread : numbers(argv[1])) {
      run.reset();
      scheduler_config config;
      config.block_size = about.block_size;
      config.num_blocks = about.num_blocks;
      config.max_model_len = about.max_model_len;
      config.vocab_size = about.vocab_size;
      config.max_num_seqs = about.max_num_seqs;
      config.max_num_batched_tokens = about.max_num_batched_tokens;
      config.max_waiting = load->requests;
      config.spread_steps = spread;
      cuda_device device{run};
      closed_loop{device, *load, config}.go(fmt::format("{} spread {:2}", argv[i], spread));
    }
  }
  return 0;
}
