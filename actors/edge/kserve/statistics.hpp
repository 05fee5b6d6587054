#pragma once

#include "actors/metrics/metrics.hpp"
#include "troupe/base/clock.hpp"
#include "troupe/base/error.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace troupe::actors::kserve {

/// A number of events and the time that they took together.
struct tally {
  std::uint64_t count = 0;
  std::uint64_t ns = 0;

  void add(duration d);
};

/// How one inference went, from its arrival to its final response.
struct inference_times {
  /// Until a replica took it.
  duration queue{0};
  /// From there to the final response.
  duration infer{0};
};

/// What Triton counts of one version of a model, for the statistics endpoint and as nv_inference_*.
/// An inference counts when its final response has come, with the time to that, whichever API it
/// came in by. Thread-safe.
class statistics {
public:
  explicit statistics(std::shared_ptr<metrics> numbers) : numbers_{std::move(numbers)} {}

  using key = std::pair<std::string, std::string>;

  void pending(const key& model, int change);
  /// Response number `index` of a request came after `took` since the one before.
  void responded(const key& model, std::size_t index, duration took, bool empty);
  /// A request of so many inferences.
  void succeeded(const key& model, const inference_times& times, std::uint32_t batch_size = 1);
  /// Requests of together `batch_size` inferences were computed in one go.
  void executed(const key& model, std::uint32_t batch_size, duration took);
  /// `why` decides the reason: busy is REJECTED, cancelled is CANCELED, others are BACKEND.
  void failed(const key& model, const inference_times& times, errc why, std::size_t responses);

  /// The answer of the statistics endpoint for these versions, counted or not.
  [[nodiscard]] std::string json(const std::vector<key>& models) const;

private:
  struct response_count {
    tally infer, output, success, fail, empty, cancel;
  };
  struct entry {
    std::uint64_t last_inference_ms = 0;
    std::uint64_t inferences = 0;
    std::uint64_t executions = 0;
    tally success, fail, queue, infer;
    std::vector<response_count> responses;
    /// By their size.
    std::map<std::uint32_t, tally> batches;
  };

  [[nodiscard]] static response_count& response_of(entry& e, std::size_t index);

  std::shared_ptr<metrics> numbers_;
  mutable std::mutex mutex_;
  std::map<key, entry> entries_;
};

} // namespace troupe::actors::kserve
