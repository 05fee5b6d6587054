#pragma once

#include "actors/metrics/metrics.hpp"

#include <prometheus/labels.h>
#include <prometheus/registry.h>

#include <cstdint>
#include <string_view>

namespace troupe::actors {

/// What the router of this process does and knows. Not thread-safe.
class router_series {
public:
  explicit router_series(prometheus::Registry& registry) : registry_{registry} {}

  void update(const router_numbers& numbers);
  void migrated(std::uint64_t exact, std::uint64_t inexact);
  void poisoned(std::uint64_t requests);
  void decided(std::string_view policy, double seconds);

private:
  void count(const char* name, const char* help, std::uint64_t step,
             const prometheus::Labels& labels);

  prometheus::Registry& registry_;
};

} // namespace troupe::actors
