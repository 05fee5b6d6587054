#include "engine/exec/cuda/cuda_executor.hpp"
#include "engine/exec/rank_group.hpp"
#include "engine/exec/step_driver.hpp"
#include "tests/bench/cuda_bench.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

// The CUDA executor on random bf16 models of known shapes: a decode step at several batches and the
// prefill of one prompt, against the time that reading the weights once takes at the read bandwidth
// measured in the same run. Decode is timed from collect to collect with a step ahead in work, as
// the scheduler drives it; medians. Prints one line a figure, with what vLLM 0.26.0 took on an H100
// (seen on another machine of the kind, so a hint and not a comparison).
//
//   bench_cuda [--model llama8b|qwen06b] [--batches 1,8,32,64,128,256] [--steps N] [--context N]
//              [--prefill 128,512,2048] [--without early_launch,one_carveout,read_ahead,
//              less_ahead,skinny,streamed,halved,wide,even_blocks,gate_in_product,warpgroups,
//              sum_in_product,split_norms,head_leads,narrow_last,rope_in_attention,
//              rope_in_prompts,kept_sums,norm_in_product,kv_leaves_first]
//              [--ladder 1,8,32,64] [--each 1,8,32,64] [--mixed 64,192 [--rows 1024]] [--ranks N]
//              [--deterministic 1] [--turns narrow_last,kept_sums]
//
// --mixed measures steps of so many decodes with some of prompts, of --rows in all. --ranks spreads
// the model over the first N GPUs. --deterministic measures the batch-invariant mode. --turns
// measures prompts and full steps of --prefill, and steps of 1,024 and 4,096 rows (or --rows) with
// the answers of --mixed, in turns with all shortcuts and without each of these, for a card grows
// slower as it warms. --ladder measures a decode step at those batches once more for each rung: all
// shortcuts of kernels/cuda left out, then one after the other taken, each on a model loaded anew.
// --each takes all, and all but one.
namespace {

using namespace troupe;
using namespace troupe::engine;
using namespace troupe::bench;
using steady = std::chrono::steady_clock;

/// vLLM's milliseconds: of a decode step by batch, and to the first token by the length of a
/// prompt.
struct peer_times {
  std::map<std::uint32_t, double> decode;
  std::map<std::uint32_t, double> prefill;
};

const std::map<std::string, peer_times> peers{
    {"llama8b",
     {{{1, 6.46}, {8, 6.64}, {32, 7.08}, {64, 7.73}, {128, 9.03}, {256, 12.3}},
      {{128, 13.6}, {512, 17.1}, {2048, 54}, {8192, 220}}}},
    {"qwen06b", {{{1, 1.55}, {64, 2.59}, {256, 5.24}}, {}}}};

/// "0.93 of vLLM's 6.46 ms", or nothing where there is no figure.
std::string beside(const std::map<std::uint32_t, double>& peer, std::uint32_t key, double seconds) {
  const auto found = peer.find(key);
  return found == peer.end() ? std::string{}
                             : fmt::format(", {:.2f} of vLLM's {} ms",
                                           seconds * 1e3 / found->second, found->second);
}

struct settings {
  std::string model = "llama8b";
  std::vector<std::uint32_t> batches{1, 8, 32, 64, 128, 256};
  std::vector<std::uint32_t> prefills{128, 512, 2048, 8192};
  std::uint32_t steps = 40;
  std::uint32_t context = 128;
  std::uint32_t ranks = 1;
  std::vector<std::uint32_t> ladder;
  bool each = false;
  std::vector<std::uint32_t> mixed;
  std::vector<std::uint32_t> rows;
  bool deterministic = false;
  std::string turns;
};

/// What may be left out, in the order of the rungs, and how.
struct rung {
  std::string_view name;
  void (*leave)(kernels::cuda::shortcuts&);
};

const std::vector<rung> rungs{
    {"early_launch", [](auto& taken) { taken.early_launch = false; }},
    {"one_carveout", [](auto& taken) { taken.one_carveout = false; }},
    {"read_ahead", [](auto& taken) { taken.read_ahead = false; }},
    // As far ahead as the second run read.
    {"less_ahead", [](auto& taken) { taken.ahead_bytes = 20 << 20U; }},
    {"skinny", [](auto& taken) { taken.skinny_rows = 0; }},
    {"streamed", [](auto& taken) { taken.streamed = false; }},
    {"halved", [](auto& taken) { taken.halved = false; }},
    {"wide", [](auto& taken) { taken.wide = false; }},
    {"even_blocks", [](auto& taken) { taken.even_blocks = false; }},
    {"graphs_of_ranks", [](auto& taken) { taken.graphs_of_ranks = false; }},
    {"gate_in_product", [](auto& taken) { taken.gate_in_product = false; }},
    {"warpgroups", [](auto& taken) { taken.warpgroups = false; }},
    {"rope_in_attention", [](auto& taken) { taken.rope_in_attention = false; }},
    {"kv_leaves_first", [](auto& taken) { taken.kv_leaves_first = false; }},
    {"kept_sums", [](auto& taken) { taken.kept_sums = 1 << 20; }},
    {"rope_in_prompts", [](auto& taken) { taken.rope_in_prompts = 1 << 20; }},
    {"norm_in_product", [](auto& taken) { taken.norm_in_product = false; }},
    {"sum_in_product", [](auto& taken) { taken.sum_in_product = false; }},
    {"split_norms", [](auto& taken) { taken.split_norms = false; }},
    {"head_leads", [](auto& taken) { taken.head_leads = false; }},
    {"narrow_last", [](auto& taken) { taken.narrow_last = false; }}};

/// The shortcuts that `text` names; none when one is unknown.
std::optional<std::vector<rung>> rungs_of(const std::string& text) {
  std::vector<rung> found;
  for (const std::string& named : names(text)) {
    const auto at = std::ranges::find(rungs, named, &rung::name);
    if (at == rungs.end())
      return std::nullopt;
    found.push_back(*at);
  }
  return found;
}

void leave_out(const std::vector<rung>& shortcuts) {
  for (const rung& one : shortcuts)
    one.leave(kernels::cuda::shortcuts_taken());
}

struct decode_times {
  double step = 0;
  /// Of the device, forward and sampling; of the host, until everything is enqueued.
  double device = 0;
  double host = 0;
};

/// Steps with the next one always in work, and what they took from collect to collect.
class step_line {
public:
  explicit step_line(executor& run) : run_{run} {}

  void step(const step_batch& next) {
    const auto begin = steady::now();
    begin_step(run_, next);
    host.push_back(seconds_since(begin));
    if (before_) {
      const auto brought = must(run_.collect(*before_));
      device.push_back(
          static_cast<double>((brought.timings.forward + brought.timings.sample).count()) / 1e6);
      times.push_back(seconds_since(mark_));
      mark_ = steady::now();
    }
    before_ = next.id;
  }
  /// Collects the last step, and leaves out the times of the first ones.
  void end(std::ptrdiff_t first_ones) {
    must(run_.collect(*before_));
    times.erase(times.begin(), times.begin() + std::min(first_ones, std::ssize(times)));
  }

  std::vector<double> times, device, host;

private:
  executor& run_;
  std::optional<step_id> before_;
  steady::time_point mark_ = steady::now();
};

decode_times decode(executor& run, const settings& s, std::uint32_t batch) {
  run.reset();
  test::step_driver drive{run};
  const std::uint32_t longest = s.context + s.steps + 4;
  const std::uint32_t blocks = longest / 16 + 1;
  // Prompts go in by steps of what a step may have.
  const std::uint32_t together = std::max(1U, 8192U / s.context);
  static std::uint64_t first_id = 1;
  for (std::uint32_t i = 0; i < batch; ++i) {
    drive.add(request_id{first_id + i}, prompt(s.context, i), test::sampling_at(),
              test::blocks_for(longest, 16, i * blocks));
    drive.row(request_id{first_id + i}, 0, s.context, true);
    if ((i + 1) % together == 0 || i + 1 == batch)
      must(drive.run());
  }
  step_line line{run};
  for (std::uint32_t step = 0; step < s.steps; ++step) {
    for (std::uint32_t i = 0; i < batch; ++i)
      drive.row(request_id{first_id + i}, s.context + step, 1, true);
    line.step(drive.take());
  }
  first_id += batch;
  // The first steps capture the graph.
  line.end(8);
  return {median(line.times), median(line.device), median(line.host)};
}

double prefill(executor& run, std::uint32_t size) {
  std::vector<double> times;
  for (std::uint32_t round = 0; round < 5; ++round) {
    run.reset();
    test::step_driver drive{run};
    drive.add(request_id{round + 1}, prompt(size, round), test::sampling_at(),
              test::blocks_for(size + 1, 16));
    drive.row(request_id{round + 1}, 0, size, true);
    const step_batch step = drive.take();
    const auto begin = steady::now();
    begin_step(run, step);
    must(run.collect(step.id));
    times.push_back(seconds_since(begin));
  }
  times.erase(times.begin());
  return median(times);
}

/// Steps full of prompts of `size` tokens, one ahead in work: seconds of a step, and of the host.
decode_times full_prefill(executor& run, std::uint32_t size) {
  constexpr std::uint32_t step_tokens = 8192;
  run.reset();
  test::step_driver drive{run};
  step_line line{run};
  const std::uint32_t together = std::max(1U, step_tokens / size);
  for (std::uint32_t step = 0; step < 6; ++step) {
    for (std::uint32_t i = 0; i < together; ++i) {
      const request_id id{step * together + i + 1};
      drive.add(id, prompt(size, step * together + i), test::sampling_at(),
                test::blocks_for(size + 1, 16, (step % 2 * together + i) * (size / 16 + 1)));
      drive.row(id, 0, size, true);
    }
    line.step(drive.take());
  }
  line.end(1);
  return {median(line.times), 0, median(line.host)};
}

/// Steps of `answers` decodes and of about `tokens` of prompts, no two with as many rows, one ahead
/// in work.
decode_times mixed(executor& run, std::uint32_t answers, std::uint32_t tokens) {
  constexpr std::uint32_t context = 576, longest = 512, steps = 14;
  static std::uint64_t next_id = std::uint64_t{1} << 40U;
  run.reset();
  test::step_driver drive{run};
  const std::uint64_t first_id = next_id;
  next_id += answers;
  const std::uint32_t blocks = (context + steps) / 16 + 1;
  for (std::uint32_t i = 0; i < answers; ++i) {
    drive.add(request_id{first_id + i}, prompt(context, i), test::sampling_at(),
              test::blocks_for(context + steps, 16, i * blocks));
    drive.row(request_id{first_id + i}, 0, context, true);
    if (i % 14 == 13 || i + 1 == answers)
      must(drive.run());
  }
  step_line line{run};
  for (std::uint32_t step = 0; step < steps; ++step) {
    for (std::uint32_t i = 0; i < answers; ++i)
      drive.row(request_id{first_id + i}, context + step, 1, true);
    std::uint32_t left = tokens - step;
    for (std::uint32_t i = 0; left > 0; ++i) {
      const std::uint32_t size = std::min(left, longest);
      const request_id id{next_id++};
      drive.add(id, prompt(size, step * 100 + i), test::sampling_at(),
                test::blocks_for(size + 1, 16, answers * blocks + (step % 2 * 16 + i) * 33));
      drive.row(id, 0, size, true);
      left -= size;
    }
    line.step(drive.take());
  }
  line.end(1);
  return {median(line.times), 0, *std::max_element(line.host.begin() + 1, line.host.end())};
}

/// How many rows the steps of --mixed have.
std::vector<std::uint32_t> rows_of(const settings& s, std::vector<std::uint32_t> otherwise) {
  return s.rows.empty() ? std::move(otherwise) : s.rows;
}

/// What each shortcut spares long prompts and mixed steps, as medians of runs that take turns.
void report_turns(executor& run, const settings& s) {
  const std::vector<rung> left = *rungs_of(s.turns);
  const auto with_and_without = [&](const std::string& what, int rounds, const auto& measure) {
    std::vector<std::vector<double>> times(left.size() + 1);
    // The first only warms up.
    measure();
    for (int round = 0; round < rounds; ++round)
      for (std::size_t i = 0; i < times.size(); ++i) {
        // There and back, so that none is always behind the same one.
        const std::size_t at = round % 2 == 0 ? i : left.size() - i;
        kernels::cuda::shortcuts_taken() = {};
        if (at > 0)
          left[at - 1].leave(kernels::cuda::shortcuts_taken());
        times[at].push_back(measure());
      }
    kernels::cuda::shortcuts_taken() = {};
    const double all = median(times[0]);
    fmt::print("{} {}: {:.2f} ms", s.model, what, all * 1e3);
    for (std::size_t i = 0; i < left.size(); ++i) {
      const double without = median(times[i + 1]);
      fmt::print(", without {} {:.2f} ({:.4f})", left[i].name, without * 1e3, without / all);
    }
    fmt::print("\n");
    std::fflush(stdout);
  };
  for (const std::uint32_t size : s.prefills) {
    with_and_without(fmt::format("prefill {:5}", size), 6, [&] { return prefill(run, size); });
    if (size >= 2048)
      with_and_without(fmt::format("full steps of prompts of {}", size), 6,
                       [&] { return full_prefill(run, size).step; });
  }
  for (const std::uint32_t answers : s.mixed)
    for (const std::uint32_t rows : rows_of(s, {1024, 4096}))
      with_and_without(fmt::format("mixed {:3} answers + {:4} of prompts", answers, rows - answers),
                       3, [&] { return mixed(run, answers, rows - answers).step; });
}

settings parse(int argc, char** argv) {
  settings s;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string option = argv[i];
    const std::string given = argv[i + 1];
    if (option == "--model" && configs.contains(given))
      s.model = given;
    else if (option == "--batches")
      s.batches = numbers(given);
    else if (option == "--prefill")
      s.prefills = numbers(given);
    else if (option == "--steps")
      s.steps = numbers(given).at(0);
    else if (option == "--context")
      s.context = numbers(given).at(0);
    else if (option == "--mixed")
      s.mixed = numbers(given);
    else if (option == "--rows")
      s.rows = numbers(given);
    else if (option == "--turns" && rungs_of(given))
      s.turns = given;
    else if (option == "--deterministic")
      s.deterministic = numbers(given).at(0) != 0;
    else if (option == "--ranks")
      s.ranks = numbers(given).at(0);
    else if (option == "--ladder")
      s.ladder = numbers(given);
    else if (option == "--each") {
      s.ladder = numbers(given);
      s.each = true;
    } else if (option == "--without" && rungs_of(given)) {
      leave_out(*rungs_of(given));
      fmt::print("without {}:\n", given);
    } else {
      fmt::print(stderr, "bench_cuda: '{} {}' is no option; the file's head lists them\n", option,
                 given);
      std::exit(2);
    }
  }
  return s;
}

void report(test::rank_group& run, const settings& s, double floor) {
  const auto& first = static_cast<cuda::cuda_executor&>(run.rank(0));
  const peer_times& peer = peers.at(s.model);
  for (const std::uint32_t batch : s.batches) {
    const decode_times t = decode(run, s, batch);
    fmt::print("{} decode {:3} at {}: {:.3f} ms, {:.2f} of the floor{}; device {:.3f}, host {:.3f} "
               "ms\n",
               s.model, batch, s.context, t.step * 1e3, t.step / floor,
               beside(peer.decode, batch, t.step), t.device * 1e3, t.host * 1e3);
    fmt::print("{} decode {:3} takes: {}\n", s.model, batch, first.kernels_of(batch));
    std::fflush(stdout);
  }
  for (const std::uint32_t size : s.prefills) {
    const double time = prefill(run, size);
    fmt::print("{} prefill {:5}: {:.2f} ms to the first token, {:.0f} tokens/s{}\n", s.model, size,
               time * 1e3, size / time, beside(peer.prefill, size, time));
    std::fflush(stdout);
  }
  for (const std::uint32_t size : {2048U, 8192U}) {
    if (std::find(s.prefills.begin(), s.prefills.end(), size) == s.prefills.end())
      continue;
    const decode_times t = full_prefill(run, size);
    fmt::print("{} full steps of prompts of {}: {:.2f} ms, {:.0f} tokens/s; host {:.2f} ms\n",
               s.model, size, t.step * 1e3, 8192 / t.step, t.host * 1e3);
    std::fflush(stdout);
  }
  // In turns they are measured apart.
  if (!s.turns.empty())
    return;
  for (const std::uint32_t answers : s.mixed)
    for (const std::uint32_t rows :
         rows_of(s, {256, 320, 384, 448, 512, 640, 768, 1024, 2048, 8192})) {
      if (rows < answers + 64)
        continue;
      const decode_times t = mixed(run, answers, rows - answers);
      fmt::print("{} mixed {:3} answers + {:4} of prompts: {:.2f} ms; host {:.2f} ms at most\n",
                 s.model, answers, rows - answers, t.step * 1e3, t.host * 1e3);
      std::fflush(stdout);
    }
}

/// One line of decode steps on a model loaded anew, with the shortcuts as they are.
void decode_line(const settings& s, const std::filesystem::path& folder,
                 const cuda::device_info& device, const std::string& name) {
  cuda::cuda_executor run{options_of(folder), device};
  must(run.load({}));
  fmt::print("{} {:<25}", s.model, name);
  for (const std::uint32_t batch : s.ladder)
    fmt::print(" {:3}: {:.3f} ms", batch, decode(run, s, batch).step * 1e3);
  fmt::print("\n");
  std::fflush(stdout);
}

/// A rung leaves out the shortcuts from `taken` on: the last one takes all.
void climb(const settings& s, const std::filesystem::path& folder,
           const cuda::device_info& device) {
  for (std::size_t taken = 0; taken <= rungs.size(); ++taken) {
    kernels::cuda::shortcuts_taken() = {};
    for (std::size_t i = taken; i < rungs.size(); ++i)
      rungs[i].leave(kernels::cuda::shortcuts_taken());
    decode_line(s, folder, device,
                taken == 0 ? std::string{"ladder none"}
                           : fmt::format("ladder + {}", rungs[taken - 1].name));
  }
}

/// All shortcuts, and all but one.
void leave_each(const settings& s, const std::filesystem::path& folder,
                const cuda::device_info& device) {
  kernels::cuda::shortcuts_taken() = {};
  decode_line(s, folder, device, "with all");
  for (const rung& one : rungs) {
    kernels::cuda::shortcuts_taken() = {};
    one.leave(kernels::cuda::shortcuts_taken());
    decode_line(s, folder, device, fmt::format("without {}", one.name));
  }
}

} // namespace

int main(int argc, char** argv) {
  const settings s = parse(argc, argv);
  const auto device = must(cuda::open_device(0));
  const double bandwidth = read_bandwidth();
  const auto folder = std::filesystem::temp_directory_path() / ("troupe-bench-" + s.model);
  std::filesystem::create_directories(folder);
  std::ofstream{folder / "config.json"} << configs.at(s.model);
  const auto begin = steady::now();
  auto options = options_of(folder);
  options.deterministic = s.deterministic;
  auto loaded =
      std::make_unique<test::rank_group>(s.ranks, options, [](const executor_options& place) {
        return std::make_unique<cuda::cuda_executor>(
            place, must(cuda::open_device(static_cast<int>(place.rank))));
      });
  test::rank_group& run = *loaded;
  must(run.load({}));
  const executor_description& about = run.describe();
  // A tied table is read as the head; an untied one is not read in a step but for a few rows.
  const double table = s.model == "llama8b" ? 128256.0 * 4096 * 2 : 0;
  const double read = static_cast<double>(about.weight_bytes) - table;
  const double floor = read / bandwidth;
  fmt::print(
      "{} on {} x {}: read {:.2f} TB/s, weights {:.2f} GB a step, floor {:.2f} ms, {} KV blocks, "
      "load {:.2f} s\n",
      s.model, s.ranks, device.name, bandwidth / 1e12, read / 1e9, floor * 1e3, about.num_blocks,
      seconds_since(begin));
  report(run, s, floor);
  if (!s.turns.empty())
    report_turns(run, s);
  // The next model needs the memory.
  loaded.reset();
  if (s.each)
    leave_each(s, folder, device);
  else if (!s.ladder.empty())
    climb(s, folder, device);
  return 0;
}
