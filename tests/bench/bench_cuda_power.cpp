#include "engine/exec/cuda/cuda_executor.hpp"
#include "engine/exec/step_driver.hpp"
#include "kernels/cuda/matmul.hpp"
#include "tests/bench/cuda_bench.hpp"
#include "tests/bench/gpu_energy.hpp"

#include <fmt/core.h>

#include <cmath>
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
namespace ops = troupe::kernels::cuda;
using steady = std::chrono::steady_clock;

constexpr std::int64_t hidden = 4096;
constexpr std::int64_t inner = 14336;
constexpr std::int64_t qkv_cols = 6144;
constexpr int layers = 32;
/// Layers with weights of their own: more than the L2 cache holds.
constexpr int copies = 3;
constexpr double least_seconds = 1.5;

struct product {
  std::int64_t n;
  std::int64_t k;
  /// Adds to the residual, as o_proj and down_proj do.
  bool add;
};
constexpr product of_layer[] = {{qkv_cols, hidden, false},
                                {hidden, hidden, true},
                                {2 * inner, hidden, false},
                                {hidden, inner, true}};

/// The products of the layers of one step.
class layer_products {
public:
  layer_products(std::int64_t rows, double sigma, stream_ref on)
      : rows_{rows}, on_{on}, workspace_{must(device_buffer::make(workspace_bytes, "workspace"))},
        library_{must(ops::matmul_library::make(workspace_.data(), workspace_bytes))},
        a_{random_buffer(rows * inner, sigma)},
        out_{must(device_buffer::make(static_cast<std::size_t>(rows * 2 * inner) * 4, "out"))} {
    for (const product& p : of_layer)
      for (int i = 0; i < copies; ++i)
        weights_.push_back(random_buffer(p.n * p.k, sigma / std::sqrt(static_cast<double>(p.k))));
    must(wait(stream_ref{nullptr}));
    for (std::size_t i = 0; i < std::size(of_layer); ++i)
      must(library_.tune(args_of(i, 0), weights_of(i), on_));
  }

  void choose_library() {
    for (std::size_t i = 0; i < std::size(of_layer); ++i)
      library_.choose(args_of(i, 0), "cuBLASLt");
  }
  [[nodiscard]] std::string kernels() const {
    std::string text;
    for (std::size_t i = 0; i < std::size(of_layer); ++i)
      text += fmt::format("{}{}", i == 0 ? "" : ", ", library_.kernel_of(args_of(i, 0)));
    return text;
  }
  /// Enqueues those of all layers.
  void pass() {
    for (int layer = 0; layer < layers; ++layer)
      for (std::size_t i = 0; i < std::size(of_layer); ++i)
        must(library_.run(args_of(i, layer), on_));
  }
  [[nodiscard]] double flops() const {
    double elements = 0;
    for (const product& p : of_layer)
      elements += static_cast<double>(p.n * p.k);
    return 2 * elements * static_cast<double>(rows_) * layers;
  }

private:
  static constexpr std::size_t workspace_bytes = std::size_t{64} << 20U;

  [[nodiscard]] std::vector<const void*> weights_of(std::size_t i) const {
    std::vector<const void*> out;
    for (int copy = 0; copy < copies; ++copy)
      out.push_back(weights_[i * copies + static_cast<std::size_t>(copy)].data());
    return out;
  }
  [[nodiscard]] ops::matmul_args args_of(std::size_t i, int layer) const {
    const product& p = of_layer[i];
    return {.a = a_.data(),
            .lda = p.k,
            .w = weights_[i * copies + static_cast<std::size_t>(layer % copies)].data(),
            .out = out_.data(),
            .ldo = p.n,
            .m = rows_,
            .n = p.n,
            .k = p.k,
            .out_type = p.add ? kernels::dtype::f32 : kernels::dtype::bf16,
            .add = p.add};
  }

  std::int64_t rows_;
  stream_ref on_;
  device_buffer workspace_;
  ops::matmul_library library_;
  device_buffer a_;
  device_buffer out_;
  std::vector<device_buffer> weights_;
};

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
