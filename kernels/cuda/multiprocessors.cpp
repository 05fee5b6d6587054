#include "kernels/cuda/multiprocessors.hpp"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <shared_mutex>
#include <vector>

namespace troupe::kernels::cuda {

namespace {

/// What is said of streams. Executors of several devices launch from threads of their own.
struct known_shares {
  /// How many there are: none as a rule, and then nobody takes the lock.
  std::atomic<std::size_t> count = 0;
  std::shared_mutex lock;
  std::vector<std::pair<stream_ref, int>> of;
};

known_shares& shares() {
  static known_shares known;
  return known;
}

} // namespace

multiprocessor_share::multiprocessor_share(stream_ref stream, int count) : stream_{stream} {
  known_shares& known = shares();
  const std::unique_lock held{known.lock};
  known.of.emplace_back(stream, count);
  known.count = known.of.size();
}

multiprocessor_share::~multiprocessor_share() {
  if (stream_ == nullptr)
    return;
  known_shares& known = shares();
  const std::unique_lock held{known.lock};
  std::erase_if(known.of, [&](const auto& one) { return one.first == stream_; });
  known.count = known.of.size();
}

int count_multiprocessors(stream_ref stream) {
  known_shares& known = shares();
  if (known.count.load(std::memory_order_acquire) > 0) {
    const std::shared_lock held{known.lock};
    const auto at = std::ranges::find(known.of, stream, &std::pair<stream_ref, int>::first);
    if (at != known.of.end())
      return at->second;
  }
  int device = 0, count = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

} // namespace troupe::kernels::cuda
