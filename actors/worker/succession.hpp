#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

namespace troupe::actors {

/// The executors that each rank of a replica has one after another. A device has room for one of
/// them, and the worker that ended may still be giving its memory back when its heir is made.
/// Safe from any thread.
class succession {
public:
  explicit succession(std::chrono::milliseconds longest = std::chrono::seconds{5})
      : longest_{longest} {}

  /// Blocks until nobody holds what the last call for `rank` returned, or the longest wait is over.
  /// Whoever was made holds the answer until all that it had is given back.
  [[nodiscard]] std::shared_ptr<const void> next(std::uint32_t rank);

private:
  std::chrono::milliseconds longest_;
  std::mutex mutex_;
  std::map<std::uint32_t, std::weak_ptr<const void>> last_;
};

} // namespace troupe::actors
