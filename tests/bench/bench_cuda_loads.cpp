#include "engine/exec/cuda/cuda_executor.hpp"
#include "engine/kv/block_pool.hpp"
#include "engine/sched/scheduler.hpp"
#include "tests/bench/cuda_bench.hpp"

#include <deque>
#include <fstream>
#include <numeric>
#include <unordered_map>

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
using steady = std::chrono::steady_clock;

struct load_shape {
  unsigned in = 0, out = 0, requests = 0, together = 0;
};

struct answer {
  steady::time_point begun, first, last;
  std::uint32_t tokens = 0;
};

class closed_loop {
public:
  closed_loop(executor& run, const load_shape& load, const scheduler_config& config)
      : run_{run}, load_{load}, sched_{config}, pool_{config.num_blocks, config.block_size} {}

  void go(const std::string& name) {
    const auto begin = steady::now();
    while (next_ < std::min(load_.together, load_.requests))
      submit();
    while (!sched_.idle()) {
      deliver();
      if (auto step = sched_.plan(steady::now())) {
        deliver();
        const auto from = steady::now();
        begin_step(run_, *step);
        host_.push_back(milliseconds(from, steady::now()));
        ahead_.push_back(step->id);
        if (ahead_.size() < 2)
          continue;
      }
      if (ahead_.empty())
        continue;
      const auto brought = must(run_.collect(ahead_.front()));
      ahead_.pop_front();
      sched_.step_done(brought, steady::now());
    }
    report(name, milliseconds(begin, steady::now()) / 1e3);
  }

private:
  static double milliseconds(steady::time_point from, steady::time_point to) {
    return std::chrono::duration<double, std::milli>(to - from).count();
  }

  void submit() {
    submission request;
    request.id = request_id{++next_};
    request.prompt = prompt(load_.in, next_);
    request.sampling.temperature = 0;
    request.sampling.max_tokens = load_.out;
    request.sampling.ignore_eos = true;
    request.sink = {.hub = hub_id{1}, .stream = stream_id{next_}};
    answers_[request.id].begun = steady::now();
    must(sched_.submit(std::move(request), steady::now()));
  }

  /// What the scheduler wants sent goes there at once, until there is no more.
  void deliver() {
    for (bool more = true; more;) {
      more = false;
      const auto actions = sched_.take_actions();
      for (const auto& done : actions.commits)
        pool_.commit(done);
      for (const auto& given : actions.releases)
        pool_.release(given);
      for (const auto& ask : actions.admits)
        sched_.admitted(pool_.admit(ask), steady::now());
      if (actions.want)
        sched_.granted(pool_.want(*actions.want));
      for (const auto& [hub, chunks] : actions.tokens)
        for (const auto& chunk : chunks)
          take(chunk);
      more = !actions.admits.empty() || actions.want || !actions.tokens.empty();
      static_cast<void>(pool_.take_events());
      static_cast<void>(sched_.take_finished());
    }
  }

  void take(const token_chunk& chunk) {
    answer& of = answers_.at(chunk.request);
    const auto now = steady::now();
    if (!chunk.ids.empty()) {
      if (of.tokens == 0)
        of.first = now;
      else
        gaps_.push_back(milliseconds(of.last, now));
      of.tokens += static_cast<std::uint32_t>(chunk.ids.size());
      of.last = now;
    }
    if (chunk.finish == finish_reason::none)
      return;
    if (of.tokens != load_.out)
      fmt::print("an answer has {} tokens, not {}: {}\n", of.tokens, load_.out, chunk.note);
    firsts_.push_back(milliseconds(of.begun, of.first));
    paces_.push_back(milliseconds(of.first, of.last) / std::max(1U, of.tokens - 1));
    if (next_ < load_.requests)
      submit();
  }

  void report(const std::string& name, double seconds) {
    std::sort(gaps_.begin(), gaps_.end());
    std::sort(host_.begin(), host_.end());
    fmt::print(
        "{}: {:.0f} tokens/s, first token {:.0f} ms, {:.2f} ms a token, gap p99 {:.1f} ms; {} "
        "steps, host {:.2f} ms a step, p99 {:.1f}, at most {:.1f}\n",
        name, load_.requests * load_.out / seconds, median(firsts_), median(paces_),
        gaps_.empty() ? 0 : gaps_[gaps_.size() * 99 / 100], host_.size(),
        std::accumulate(host_.begin(), host_.end(), 0.0) / static_cast<double>(host_.size()),
        host_[host_.size() * 99 / 100], host_.back());
    std::fflush(stdout);
  }

  executor& run_;
  load_shape load_;
  scheduler sched_;
  block_pool pool_;
  std::uint32_t next_ = 0;
  std::deque<step_id> ahead_;
  std::unordered_map<request_id, answer> answers_;
  std::vector<double> firsts_, paces_, gaps_, host_;
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
    load_shape load;
    if (std::sscanf(argv[i], "%u/%u:%u@%u", &load.in, &load.out, &load.requests, &load.together) !=
        4) {
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
      config.max_waiting = load.requests;
      config.spread_steps = spread;
      closed_loop{run, load, config}.go(fmt::format("{} spread {:2}", argv[i], spread));
    }
  }
  return 0;
}
