#include "actors/cli/bench_http.hpp"
#include "actors/cli/bench_load.hpp"
#include "actors/cli/bench_local.hpp"
#include "actors/cli/commands.hpp"
#include "actors/cli/output.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

namespace troupe::cli {

namespace {

using json = nlohmann::ordered_json;

/// A decode step is the slope between two lengths of answer, so that prefill cancels out.
constexpr std::uint32_t decode_input = 128;
constexpr std::uint32_t decode_short = 32;
constexpr std::uint32_t decode_long = 256;

int complain(const error& e) {
  std::fprintf(stderr, "troupe bench: %s\n",
               e.note.empty() ? to_string(e).c_str() : e.note.c_str());
  return failed;
}

/// Runs measures one after the other; each prints its figures as soon as it has them.
class bench_run {
public:
  bench_run(const bench_options& o, load_target& target)
      : options_{o}, target_{target}, seed_{o.seed} {}

  result<void> load(const std::string& text) {
    auto shape = parse_shape(text);
    if (!shape)
      return fail(shape.error());
    // Graphs are made and connections opened by answers that do not count.
    load_shape before = *shape;
    before.requests = before.concurrency = std::min(shape->concurrency, 256U);
    before.output = std::min(shape->output, 8U);
    if (auto warm = run(before); !warm)
      return fail(warm.error());
    const std::string metrics = target_.metrics();
    const auto times = run(*shape);
    if (!times)
      return fail(times.error());
    const load_summary s = summarize(*shape, *times);
    const auto both = [](const spread& x) {
      return json{{"median_ms", rounded(x.median_ms)}, {"p99_ms", rounded(x.p99_ms)}};
    };
    json row{{"measure", "load " + text},
             {"seconds", rounded(s.seconds)},
             {"output_tokens", s.output_tokens},
             {"output_tokens_per_s", rounded(s.output_tokens_per_s)},
             {"total_tokens_per_s", rounded(s.total_tokens_per_s)},
             {"requests_per_s", rounded(s.requests_per_s)},
             {"ttft", both(s.ttft)},
             {"tpot", both(s.tpot)},
             {"itl", both(s.itl)},
             {"e2e", both(s.e2e)}};
    std::string line = fmt::format(
        "load {}: {:.0f} output tokens/s, {:.0f} with prompts, {:.2f} requests/s; "
        "median / p99 ms: TTFT {:.1f} / {:.1f}, TPOT {:.2f} / {:.2f}, ITL {:.2f} / "
        "{:.2f}",
        text, s.output_tokens_per_s, s.total_tokens_per_s, s.requests_per_s, s.ttft.median_ms,
        s.ttft.p99_ms, s.tpot.median_ms, s.tpot.p99_ms, s.itl.median_ms, s.itl.p99_ms);
    add_steps(metrics, row, line);
    return say(row, line);
  }

  result<void> decode(std::uint32_t batch) {
    std::vector<double> slopes;
    for (std::uint32_t round = 0; round <= options_.rounds; ++round) {
      const auto brief = run(all_at_once(decode_input, decode_short, batch));
      const auto lengthy = brief ? run(all_at_once(decode_input, decode_long, batch)) : brief;
      if (!lengthy)
        return fail(lengthy.error());
      if (round > 0)
        slopes.push_back((lengthy->seconds - brief->seconds) / (decode_long - decode_short));
    }
    const double step_ms = spread_of(slopes).median_ms;
    return say({{"measure", fmt::format("decode {}", batch)}, {"step_ms", rounded(step_ms)}},
               fmt::format("decode {}: {:.3f} ms a step", batch, step_ms));
  }

  result<void> first_token(std::uint32_t tokens) {
    std::vector<double> seconds;
    for (std::uint32_t round = 0; round <= options_.rounds; ++round) {
      const auto times = run(all_at_once(tokens, 1, 1));
      if (!times)
        return fail(times.error());
      if (round > 0)
        seconds.push_back(times->seconds);
    }
    const double ms = spread_of(seconds).median_ms;
    return say({{"measure", fmt::format("first_token {}", tokens)}, {"ms", rounded(ms)}},
               fmt::format("first token of a prompt of {}: {:.2f} ms", tokens, ms));
  }

private:
  static double rounded(double x) { return static_cast<double>(std::llround(x * 1e4)) / 1e4; }

  static load_shape all_at_once(std::uint32_t input, std::uint32_t output, std::uint32_t count) {
    return {.input = input, .output = output, .requests = count, .concurrency = count};
  }

  /// No two runs have a prompt in common.
  result<load_times> run(load_shape shape) {
    shape.seed = seed_++;
    return target_.run(shape);
  }

  /// What the worker says of its steps meanwhile, where it does.
  void add_steps(const std::string& before, json& row, std::string& line) {
    const std::string after = target_.metrics();
    const auto grown = [&](const char* name, const char* label) {
      return metric_sum(after, name, label) - metric_sum(before, name, label);
    };
    const double steps = grown("troupe:step_phase_seconds_count", "phase=\"forward\"");
    if (steps <= 0)
      return;
    row["steps"] = steps;
    line += "; us a step:";
    for (const char* phase : {"prepare", "forward", "sample", "idle"}) {
      const auto label = fmt::format("phase=\"{}\"", phase);
      const double us = grown("troupe:step_phase_seconds_sum", label.c_str()) / steps * 1e6;
      row["step_us"][phase] = rounded(us);
      line += fmt::format(" {} {:.0f}", phase, us);
    }
  }

  [[nodiscard]] result<void> say(const json& row, const std::string& line) const {
    return write_out(stdout, (options_.json ? row.dump() : line) + "\n");
  }

  const bench_options& options_;
  load_target& target_;
  std::uint64_t seed_;
};

result<void> run_all(const bench_options& o, load_target& target) {
  bench_run bench{o, target};
  // A single prompt finds a device that has not yet worked: one that is warm is up to a tenth
  // slower.
  for (const auto tokens : o.first_token)
    if (auto done = bench.first_token(tokens); !done)
      return done;
  for (const auto batch : o.decode)
    if (auto done = bench.decode(batch); !done)
      return done;
  for (const auto& load : o.loads)
    if (auto done = bench.load(load); !done)
      return done;
  return {};
}

/// The first thing that is wrong with the numbers given.
result<void> check(const bench_options& o) {
  if (o.loads.empty() && o.decode.empty() && o.first_token.empty())
    return fail(errc::invalid_argument, "nothing to measure: give --load, --decode or "
                                        "--first-token; `troupe bench --help` has examples");
  for (const auto& load : o.loads)
    if (auto shape = parse_shape(load); !shape)
      return fail(shape.error());
  for (const auto* list : {&o.decode, &o.first_token})
    if (std::find(list->begin(), list->end(), 0U) != list->end())
      return fail(errc::invalid_argument,
                  "0 is no batch and no length; give numbers from 1 on to --decode and "
                  "--first-token");
  return {};
}

/// The most requests that a measure keeps open at a time. @pre check()
std::uint32_t most_open(const bench_options& o) {
  std::uint32_t most = 1;
  for (const auto batch : o.decode)
    most = std::max(most, batch);
  for (const auto& load : o.loads)
    most = std::max(most, parse_shape(load)->concurrency);
  return most;
}

} // namespace

int run_bench(bench_options o) {
  if (auto good_numbers = check(o); !good_numbers)
    return complain(good_numbers.error());
  if (!o.config.port)
    o.config.port = std::uint16_t{0};
  auto target = o.config.file.empty() ? open_server(o.client, o.model, o.vocabulary)
                                      : start_local(o.config, o.model, o.vocabulary, most_open(o));
  if (!target)
    return complain(target.error());
  if (auto done = run_all(o, **target); !done)
    return complain(done.error());
  return good;
}

} // namespace troupe::cli
