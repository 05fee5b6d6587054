#include "actors/metrics/buckets.hpp"

namespace troupe::actors {

std::vector<double> first_token_buckets() {
  return {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
          1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
}

std::vector<double> inter_token_buckets() {
  return {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
          0.75, 1,     2.5,  5,     7.5, 10,   20,  40,  80};
}

std::vector<double> request_buckets() {
  return {0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
          30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680};
}

std::vector<double> token_count_buckets(std::uint32_t most) {
  std::vector<double> bounds;
  for (std::uint64_t decade = 1;; decade *= 10)
    for (const std::uint64_t mantissa : {1, 2, 5}) {
      if (decade * mantissa > most)
        return bounds;
      bounds.push_back(static_cast<double>(decade * mantissa));
    }
}

std::vector<double> answer_buckets() { return {1, 2, 5, 10, 20}; }

std::vector<double> iteration_buckets() {
  return {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
}

std::vector<double> phase_buckets() {
  return {0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3};
}

} // namespace troupe::actors
