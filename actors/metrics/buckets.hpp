#pragma once

#include <cstdint>
#include <vector>

namespace troupe::actors {

/// The bounds of vLLM's histograms, so that a quantile means the same on both.
/// @source vLLM's Prometheus documentation
[[nodiscard]] std::vector<double> first_token_buckets();
[[nodiscard]] std::vector<double> inter_token_buckets();
/// End to end, queue, inference, prefill and decode.
[[nodiscard]] std::vector<double> request_buckets();
/// 1, 2, 5, 10, 20, 50, ... up to `most`, which is at least 1.
[[nodiscard]] std::vector<double> token_count_buckets(std::uint32_t most);
[[nodiscard]] std::vector<double> answer_buckets();
[[nodiscard]] std::vector<double> iteration_buckets();
/// For the phases of a step, which last from microseconds to seconds.
[[nodiscard]] std::vector<double> phase_buckets();

} // namespace troupe::actors
