#include "tests/bench/closed_loop.hpp"

#include <array>
#include <cstdlib>
#include <cstring>

// What the scheduler's policy makes of loads on a device whose steps are reckoned, not run: counts
// of steps, recomputed tokens and preemptions are exact, times are those of the table below, which
// an H100 gave for Llama-3.1-8B's shape in bf16. Needs no GPU.
//
//   bench_loads [--tokens 8192] [--places 0] BLOCKS SPREAD,SPREAD... IN/OUT:REQUESTS@AT_A_TIME...
namespace {

using namespace troupe;
using namespace troupe::engine;
using namespace troupe::bench;

struct point {
  double rows, ms;
};

/// What a step of so many rows takes without attention to what is stored.
constexpr std::array<point, 15> bases{{{1, 5.3},
                                       {8, 5.35},
                                       {16, 5.45},
                                       {32, 5.65},
                                       {64, 6.3},
                                       {128, 6.7},
                                       {192, 7.8},
                                       {256, 8.0},
                                       {384, 10.5},
                                       {512, 12.5},
                                       {768, 18.2},
                                       {1024, 23.2},
                                       {2048, 45.5},
                                       {4096, 88.0},
                                       {8192, 176.0}}};

double base_of(double rows) {
  std::size_t i = 1;
  while (i + 1 < bases.size() && bases[i].rows < rows)
    ++i;
  const auto [left, right] = std::pair{bases[i - 1], bases[i]};
  return left.ms + (right.ms - left.ms) * (rows - left.rows) / (right.rows - left.rows);
}

/// Milliseconds for each stored token that a row of an answer reads: 128 KiB at 0.93 of 3.04 TB/s.
constexpr double read_ms = 131072 / (0.93 * 3.04e9);
/// For each pair of positions that a prompt's row sees.
constexpr double pair_ms = 1.4e-6;

/// For each block of 16 tokens that is copied to host memory or back: 2 MiB at 50 GB/s.
constexpr double copy_ms = 16 * 131072 / 50e6;

class reckoned_device final : public load_device {
public:
  void begin(const step_batch& step) override {
    step_result brought;
    brought.id = step.id;
    double rows = 0, more = 0;
    for (const auto& row : step.rows) {
      const double first = row.position, count = row.tokens;
      rows += count;
      more += count > 1 ? count * (first + count / 2) * pair_ms : first * read_ms;
      if (row.samples)
        brought.tokens.push_back({row.id, 7});
    }
    // Copies go beside the step.
    const double copies = static_cast<double>(step.saved.size() + step.restored.size()) * copy_ms;
    const auto ms =
        std::chrono::duration<double, std::milli>{std::max(base_of(rows) + more, copies)};
    free_at_ = std::max(free_at_, now_) + std::chrono::duration_cast<duration>(ms);
    under_way_.push_back({free_at_, std::move(brought)});
  }
  step_result collect(step_id) override {
    auto [at, brought] = std::move(under_way_.front());
    under_way_.pop_front();
    now_ = std::max(now_, at);
    return brought;
  }
  [[nodiscard]] time_point now() const override { return now_; }

private:
  time_point now_{}, free_at_{};
  std::deque<std::pair<time_point, step_result>> under_way_;
};

} // namespace

int main(int argc, char** argv) {
  const auto option = [&](const char* name, int otherwise) {
    if (argc < 3 || std::strcmp(argv[1], name) != 0)
      return otherwise;
    argc -= 2;
    argv += 2;
    return std::atoi(argv[0]);
  };
  const int budget = option("--tokens", 8192);
  const int places = option("--places", 0);
  if (argc < 4) {
    fmt::print(stderr, "bench_loads [--tokens N] [--places N] BLOCKS SPREAD,SPREAD... "
                       "IN/OUT:REQUESTS@AT_A_TIME...\n");
    return 2;
  }
  for (int i = 3; i < argc; ++i) {
    const auto load = load_shape::of(argv[i]);
    if (!load) {
      fmt::print(stderr, "bench_loads: '{}' is not IN/OUT:REQUESTS@AT_A_TIME\n", argv[i]);
      return 2;
    }
    for (const char* spread = argv[2]; spread != nullptr;
         spread = std::strchr(spread, ',') == nullptr ? nullptr : std::strchr(spread, ',') + 1) {
      scheduler_config config;
      config.num_blocks = static_cast<std::uint32_t>(std::atoi(argv[1]));
      config.num_host_blocks = static_cast<std::uint32_t>(places);
      config.max_model_len = 9216;
      config.vocab_size = 128256;
      config.max_num_seqs = 256;
      config.max_num_batched_tokens = static_cast<std::uint32_t>(budget);
      config.max_waiting = load->requests;
      config.spread_steps = static_cast<std::uint32_t>(std::atoi(spread));
      reckoned_device device;
      closed_loop{device, *load, config}.go(
          fmt::format("{} spread {:2}", argv[i], config.spread_steps));
    }
  }
  return 0;
}
