#pragma once

#include "troupe/base/error.hpp"
#include "troupe/base/ids.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::cli {

/// Requests of one shape: random prompts of `input` tokens, each answered with `output` tokens,
/// greedy and without regard to end-of-sequence tokens; `concurrency` of them at a time, the next
/// one as soon as one has ended.
struct load_shape {
  std::uint32_t input = 0;
  std::uint32_t output = 0;
  std::uint32_t requests = 1;
  std::uint32_t concurrency = 1;
  /// Prompts are drawn with it; another one gives prompts that share no prefix.
  std::uint64_t seed = 0;
};

/// When the tokens of one answer came, in seconds since it was asked for.
struct answer_times {
  double first = 0;
  double last = 0;
  std::uint64_t tokens = 0;
  /// Between one arrival of tokens and the next.
  std::vector<double> gaps;
};

/// What one run of a shape brought.
struct load_times {
  double seconds = 0;
  std::vector<answer_times> answers;
};

/// What is put under load: a cluster in this process, or a server behind a URL.
class load_target {
public:
  virtual ~load_target() = default;
  /// Runs a shape to its end. Blocks.
  /// @errors of the first request that failed
  [[nodiscard]] virtual result<load_times> run(const load_shape& shape) = 0;
  /// The text of /metrics, or nothing where there is none.
  [[nodiscard]] virtual std::string metrics() = 0;
};

/// The prompt of one request: token ids from 10 up to `vocabulary`.
[[nodiscard]] std::vector<token_id> random_prompt(const load_shape& shape, std::uint32_t index,
                                                  std::uint32_t vocabulary);

/// "128/128:2048" or, with a concurrency, "512/128:768@64"; without one all at a time.
/// @errors invalid_argument
[[nodiscard]] result<load_shape> parse_shape(std::string_view text);

/// The median and the 99th of a hundred, in milliseconds.
struct spread {
  double median_ms = 0;
  double p99_ms = 0;
};
[[nodiscard]] spread spread_of(std::vector<double> seconds);

/// The figures of a run, in the words of other benches: time to first token, time per output token
/// behind it (one figure a request), gaps between arrivals, the whole request.
struct load_summary {
  double seconds = 0;
  std::uint64_t output_tokens = 0;
  double output_tokens_per_s = 0;
  double total_tokens_per_s = 0;
  double requests_per_s = 0;
  spread ttft;
  spread tpot;
  spread itl;
  spread e2e;
};
[[nodiscard]] load_summary summarize(const load_shape& shape, const load_times& times);

/// The sum of all samples of a series in a text of metrics, whose labels hold all of `label`.
[[nodiscard]] double metric_sum(std::string_view text, std::string_view name,
                                std::string_view label);

} // namespace troupe::cli
