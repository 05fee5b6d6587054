// The driver: runs seeds of the simulated cluster and says which fail.
#include "tests/sim/cluster.hpp"

#include <CLI/CLI.hpp>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <string>

namespace {

using namespace troupe;
using namespace troupe::sim;

std::uint64_t current_seed = 0;

/// A check that failed aborts: say which seed it was before the process ends.
void on_abort(int) {
  std::fprintf(stderr, "seed %llu aborted; replay it with --seed %llu --trace\n",
               static_cast<unsigned long long>(current_seed),
               static_cast<unsigned long long>(current_seed));
  std::signal(SIGABRT, SIG_DFL);
}

struct options {
  std::string seeds = "1..1000";
  std::uint64_t seed = 0;
  bool trace = false;
  std::string planted = "none";
  std::uint32_t failures_max = 3;
};

struct totals {
  std::uint64_t runs = 0;
  std::uint64_t failed = 0;
  std::uint64_t events = 0;
  std::uint64_t faults = 0;
  std::uint64_t preemptions = 0;
  std::uint64_t blocks_restored = 0;
  std::uint64_t matched_tokens = 0;
  double seconds = 0;
  tally clients;
};

void add(totals& sum, const outcome& run) {
  ++sum.runs;
  sum.events += run.events;
  sum.faults += run.faults;
  sum.preemptions += run.preemptions;
  sum.blocks_restored += run.blocks_restored;
  sum.matched_tokens += run.matched_tokens;
  sum.seconds += std::chrono::duration<double>(run.took).count();
  add(sum.clients, run.clients);
}

bool parse_range(const std::string& text, std::uint64_t& first, std::uint64_t& last) {
  const auto dots = text.find("..");
  try {
    first = std::stoull(text);
    last = dots == std::string::npos ? first : std::stoull(text.substr(dots + 2));
  } catch (const std::exception&) {
    return false;
  }
  return first <= last;
}

bool parse_sabotage(const std::string& text, sabotage& out) {
  for (const auto each : all_sabotages()) {
    if (text == to_string(each)) {
      out = each;
      return true;
    }
  }
  return false;
}

void tell_failure(std::uint64_t seed, sabotage planted, const outcome& run, bool traced) {
  fmt::print("seed {} failed: {}\n", seed, run.broken);
  if (!traced) {
    fmt::print("the last events before that:\n");
    for (const auto& line : run_seed(seed, planted, trace::level::keep).last)
      fmt::print("  {}\n", line);
  }
  fmt::print("replay: sim_cluster --seed {} --trace{}\n", seed,
             planted == sabotage::none ? "" : fmt::format(" --plant {}", to_string(planted)));
}

void tell_totals(const totals& sum, double wall) {
  const auto& c = sum.clients;
  fmt::print("{} seeds, {} failed; {:.1f} s here, {:.0f} s there; {} events, {} faults\n", sum.runs,
             sum.failed, wall, sum.seconds, sum.events, sum.faults);
  fmt::print(
      "{} requests: {} whole, {} aborted, {} refused, {} errors ({} timed out, {} poisoned), "
      "{} abandoned\n",
      c.requests, c.whole, c.aborted, c.refused, c.errors, c.timed_out, c.poisoned, c.abandoned);
  fmt::print("{} attempts resumed, {} of them midway, {} inexact; {} tokens, {} prompt tokens "
             "cached, {} foreseen by routers; {} preemptions, {} blocks restored\n",
             c.resumed, c.resumed_midway, c.inexact, c.tokens, c.cached_tokens, sum.matched_tokens,
             sum.preemptions, sum.blocks_restored);
}

} // namespace

int main(int argc, char** argv) {
  CLI::App app{"Runs a whole simulated cluster for each seed and checks what it promises"};
  options given;
  app.add_option("--seeds", given.seeds, "A..B, both included");
  app.add_option("--seed", given.seed, "one seed");
  app.add_flag("--trace", given.trace, "print every event");
  app.add_option("--plant", given.planted, "a defect to plant, as in world_plan.hpp");
  app.add_option("--failures", given.failures_max, "give up after so many failed seeds");
  CLI11_PARSE(app, argc, argv);
  std::uint64_t first = given.seed;
  std::uint64_t last = given.seed;
  if (given.seed == 0 && !parse_range(given.seeds, first, last)) {
    fmt::print(stderr, "--seeds {}: give A..B with A <= B\n", given.seeds);
    return 2;
  }
  auto planted = sabotage::none;
  if (!parse_sabotage(given.planted, planted)) {
    fmt::print(stderr, "--plant {}: there is no such defect; see world_plan.hpp\n", given.planted);
    return 2;
  }
  std::signal(SIGABRT, on_abort);
  const auto begin = std::chrono::steady_clock::now();
  totals sum;
  for (auto seed = first; seed <= last && sum.failed < given.failures_max; ++seed) {
    current_seed = seed;
    const auto how = given.trace ? trace::level::print : trace::level::digest;
    const auto run = run_seed(seed, planted, how);
    add(sum, run);
    if (run.broken.empty())
      continue;
    ++sum.failed;
    tell_failure(seed, planted, run, given.trace);
    std::fflush(stdout);
  }
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - begin;
  tell_totals(sum, wall.count());
  return sum.failed == 0 ? 0 : 1;
}
