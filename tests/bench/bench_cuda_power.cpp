#include "engine/exec/cuda/cuda_executor.hpp"
#include "engine/exec/step_driver.hpp"
#include "tests/bench/cuda_bench.hpp"
#include "tests/bench/gpu_energy.hpp"
#include "tests/bench/layer_products.hpp"

#include <fmt/core.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string_view>
#include <vector>

// Whether power bounds a step of Llama-3.1-8B's shape in bf16: the products of all its layers, made
// over and over by cuBLASLt's fastest algorithms and by the kernels that are chosen, from random
// numbers and from zeros, whose multiplication takes less power; then whole steps of one prompt.
// Each line has milliseconds, watts, joules and the clock. Where random numbers run at the card's
// limit and zeros are faster on the same kernels, it is power that bounds, and the joules of a step
// over the limit are the least time that these kernels can take.
//
//   bench_cuda_power [ROWS...]      default 256 2048 8192
namespace {

using namespace troupe;
using namespace troupe::bench;
using namespace troupe::engine;
using namespace troupe::engine::cuda;
using steady = std::chrono::steady_clock;

constexpr double least_seconds = 1.5;

/// Repeats a pass, which ends by waiting for the device, and prints a line.
void measure(energy_meter& meter, const std::string& name, double flops,
             const std::function<void()>& pass) {
  const auto run_for = [&](double seconds) {
    const auto begin = steady::now();
    int count = 0;
    for (; std::chrono::duration<double>(steady::now() - begin).count() < seconds; ++count)
      pass();
    return count;
  };
  // The clock settles within some hundred milliseconds.
  run_for(least_seconds / 3);
  meter.begin();
  const int count = run_for(least_seconds);
  const energy_used used = meter.end();
  const double time = used.seconds / count;
  fmt::print("power: {:<44} {:7.2f} ms, {:4.0f} TFLOP/s, {:4.0f} of {:.0f} W, {:6.2f} J, {} MHz\n",
             name, time * 1e3, flops / time / 1e12, used.watts(), meter.limit(),
             used.joules / count, used.mhz);
  std::fflush(stdout);
}

void products_of(energy_meter& meter, std::int64_t rows, stream_ref on) {
  for (const double sigma : {1.0, 0.0}) {
    layer_products all{rows, sigma, on};
    const int turns = rows > 1024 ? 1 : 16;
    const auto pass = [&] {
      for (int i = 0; i < turns; ++i)
        all.pass();
      must(wait(on));
    };
    const std::string_view of = sigma > 0 ? "random" : "zeros";
    measure(meter, fmt::format("{} rows, products, {}, x{}: {}", rows, of, turns, all.kernels()),
            all.flops() * turns, pass);
    all.choose_library();
    measure(meter, fmt::format("{} rows, products, {}, x{}: {}", rows, of, turns, "cuBLASLt"),
            all.flops() * turns, pass);
  }
}

/// Steps of one prompt of so many tokens, without a step ahead.
void steps_of(energy_meter& meter, executor& run, std::uint32_t rows) {
  std::uint32_t round = 0;
  measure(meter, fmt::format("{} rows, whole steps of one prompt", rows), 0, [&] {
    ++round;
    run.reset();
    test::step_driver drive{run};
    drive.add(request_id{round}, prompt(rows, round), test::sampling_at(),
              test::blocks_for(rows + 1, 16));
    drive.row(request_id{round}, 0, rows, true);
    const step_batch step = drive.take();
    begin_step(run, step);
    must(run.collect(step.id));
  });
}

} // namespace

int main(int argc, char** argv) {
  std::vector<std::int64_t> all_rows;
  for (int i = 1; i < argc; ++i)
    all_rows.push_back(std::atoi(argv[i]));
  if (all_rows.empty())
    all_rows = {256, 2048, 8192};
  const auto device = must(open_device(0));
  auto meter = energy_meter::open(0);
  if (!meter) {
    fmt::print(stderr, "bench_cuda_power: NVML (libnvidia-ml.so.1) does not count the energy of "
                       "GPU 0\n");
    return 1;
  }
  {
    const auto stream = must(make_stream());
    for (const std::int64_t rows : all_rows)
      products_of(*meter, rows, stream.get());
  }
  const auto folder = std::filesystem::temp_directory_path() / "troupe-bench-llama8b";
  std::filesystem::create_directories(folder);
  std::ofstream{folder / "config.json"} << configs.at("llama8b");
  cuda_executor run{options_of(folder), device};
  must(run.load({}));
  for (const std::int64_t rows : all_rows)
    steps_of(*meter, run, static_cast<std::uint32_t>(rows));
  return 0;
}
