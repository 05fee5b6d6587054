#pragma once

#include "engine/kv/block_pool.hpp"
#include "engine/sched/scheduler.hpp"
#include "tests/bench/load_parts.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <deque>
#include <numeric>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

/// Closed loops of prompts and answers through scheduler and pool of blocks, without actors and
/// HTTP, on a device that is real or only reckoned.
namespace troupe::bench {

struct load_shape {
  unsigned in = 0, out = 0, requests = 0, together = 0;

  /// "IN/OUT:REQUESTS@AT_A_TIME"
  static std::optional<load_shape> of(const char* text) {
    load_shape load;
    if (std::sscanf(text, "%u/%u:%u@%u", &load.in, &load.out, &load.requests, &load.together) == 4)
      return load;
    return std::nullopt;
  }
};

/// Runs steps, two of them under way at most, and tells the time.
class load_device {
public:
  virtual ~load_device() = default;
  virtual void begin(const engine::step_batch& step) = 0;
  /// Waits for the oldest step under way.
  virtual engine::step_result collect(step_id step) = 0;
  [[nodiscard]] virtual time_point now() const = 0;
};

class closed_loop {
public:
  closed_loop(load_device& device, const load_shape& load, const engine::scheduler_config& config)
      : device_{device}, load_{load}, sched_{config}, pool_{config.num_blocks, config.block_size} {}

  void go(const std::string& name) {
    const auto begin = device_.now();
    while (next_ < std::min(load_.together, load_.requests))
      submit();
    for (deliver(); !sched_.idle(); deliver()) {
      if (auto step = sched_.plan(device_.now())) {
        deliver();
        count(*step);
        const auto from = device_.now();
        device_.begin(*step);
        host_.push_back(milliseconds(from, device_.now()));
        ahead_.push_back(step->id);
        if (ahead_.size() < 2)
          continue;
      }
      if (ahead_.empty())
        continue;
      const auto brought = device_.collect(ahead_.front());
      ahead_.pop_front();
      sched_.step_done(brought, device_.now());
    }
    report(name, milliseconds(begin, device_.now()) / 1e3);
  }

private:
  struct answer {
    time_point begun, first, last;
    std::uint32_t tokens = 0;
  };

  static double milliseconds(time_point from, time_point to) {
    return std::chrono::duration<double, std::milli>(to - from).count();
  }

  void submit() {
    engine::submission request;
    request.id = request_id{++next_};
    request.prompt = prompt(load_.in, next_);
    request.sampling.temperature = 0;
    request.sampling.max_tokens = load_.out;
    request.sampling.ignore_eos = true;
    request.sink = {.hub = hub_id{1}, .stream = stream_id{next_}};
    answers_[request.id].begun = device_.now();
    if (auto taken = sched_.submit(std::move(request), device_.now()); !taken)
      fmt::print(stderr, "refused: {}\n", to_string(taken.error()));
  }

  void count(const engine::step_batch& step) {
    bool any = false;
    for (const auto& row : step.rows) {
      any = any || row.tokens > 1;
      computed_ += row.tokens;
    }
    with_prompts_ += any ? 1 : 0;
    rows_ += step.rows.size();
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
        sched_.admitted(pool_.admit(ask), device_.now());
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

  void take(const engine::token_chunk& chunk) {
    answer& of = answers_.at(chunk.request);
    const auto now = device_.now();
    if (!chunk.ids.empty()) {
      if (of.tokens == 0)
        of.first = now;
      else
        gaps_.push_back(milliseconds(of.last, now));
      of.tokens += static_cast<std::uint32_t>(chunk.ids.size());
      of.last = now;
    }
    if (chunk.finish == engine::finish_reason::none)
      return;
    if (of.tokens != load_.out)
      fmt::print("an answer has {} tokens, not {}: {}\n", of.tokens, load_.out, chunk.note);
    firsts_.push_back(milliseconds(of.begun, of.first));
    paces_.push_back(milliseconds(of.first, of.last) / std::max(1U, of.tokens - 1));
    if (next_ < load_.requests)
      submit();
  }

  void report(const std::string& name, double seconds) {
    const auto p99 = [](std::vector<double>& figures) {
      std::sort(figures.begin(), figures.end());
      return figures.empty() ? 0 : figures[figures.size() * 99 / 100];
    };
    const double first_p99 = p99(firsts_), gap_p99 = p99(gaps_), host_p99 = p99(host_);
    const auto steps = static_cast<double>(host_.size());
    const auto asked = std::uint64_t{load_.requests} * (load_.in + load_.out - 1);
    fmt::print(
        "{}: {:.2f} s, {:.0f} tokens/s, first token {:.0f} ms, p99 {:.0f}, {:.2f} ms a token, gap "
        "p99 {:.1f} ms; {} steps, {} with prompts, {:.1f} rows each, {} tokens computed again, "
        "{} preemptions, {} blocks restored; host {:.2f} ms a step, p99 {:.1f}, at most {:.1f}\n",
        name, seconds, load_.requests * load_.out / seconds, median(firsts_), first_p99,
        median(paces_), gap_p99, host_.size(), with_prompts_, static_cast<double>(rows_) / steps,
        computed_ > asked ? computed_ - asked : 0, sched_.stats().preemptions,
        sched_.stats().blocks_restored, std::accumulate(host_.begin(), host_.end(), 0.0) / steps,
        host_p99, host_.back());
    std::fflush(stdout);
  }

  load_device& device_;
  load_shape load_;
  engine::scheduler sched_;
  engine::block_pool pool_;
  std::uint32_t next_ = 0;
  std::deque<step_id> ahead_;
  std::unordered_map<request_id, answer> answers_;
  std::vector<double> firsts_, paces_, gaps_, host_;
  std::uint64_t computed_ = 0, rows_ = 0, with_prompts_ = 0;
};

} // namespace troupe::bench
