#pragma once

#include "troupe/transport/shared_bytes.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

namespace troupe::net {

/// How many received bytes of one peer still have owners. Shared by the connection and the buffers,
/// which may outlive it.
struct held_meter {
  std::atomic<std::uint64_t> bytes = 0;
  std::uint64_t bytes_max = 0;
  /// Called by the owner that brings `bytes` back to the bound, in its thread.
  std::function<void()> back_in_bounds;
};

/// A snapshot of a pool.
struct buffer_pool_stats {
  /// Buffers that are out, and their capacity.
  std::uint64_t buffers_out = 0;
  std::uint64_t bytes_out = 0;
  /// Free buffers kept for the next taker.
  std::uint64_t bytes_kept = 0;
};

/// Where buffers begin: multiples of a cache line. A copy whose target lies 1 to 15 bytes behind
/// its source, page for page, runs at a quarter of the speed or less on AMD's Zen 4.
inline constexpr std::size_t pool_alignment = 64;

class pooled_buffer;

/// Buffers in size classes, four for each doubling from 256 B to 64 MiB; larger ones are not kept.
/// Every node has one for what it receives. A program that sends large messages takes its buffers
/// from one of its own, writes into them and sends what share() makes of them:
/// - a fresh 4 MiB buffer costs a thousand page faults, more than its copy, and a kept one none;
/// - from 32 KiB on buffers lie on huge pages of 2 MiB (madvise) where the system gives them. The
///   kernel looks every page of the source up when a process on the same host fetches a buffer: on
///   huge pages this costs so much less that a receiver gets 64 KiB buffers 1.4 times and 4 MiB
///   buffers twice as fast.
/// Thread-safe. Buffers may outlive the pool.
class buffer_pool {
public:
  /// @param kept_bytes_max free buffers above this are given to the system at once; up to half of
  ///        it is taken 2 MiB at a time for buffers from 32 KiB to 2 MiB and stays with the pool
  explicit buffer_pool(std::uint64_t kept_bytes_max = std::uint64_t{256} << 20);

  /// A writable buffer of `size` bytes with undefined contents. @pre size > 0
  [[nodiscard]] pooled_buffer take(std::size_t size);
  [[nodiscard]] buffer_pool_stats stats() const;

private:
  friend class pooled_buffer;
  struct shelf;
  std::shared_ptr<shelf> shelf_;
};

/// A buffer that has one owner and may still be written.
class pooled_buffer {
public:
  pooled_buffer() noexcept = default;
  pooled_buffer(pooled_buffer&& other) noexcept;
  pooled_buffer& operator=(pooled_buffer&& other) noexcept;
  ~pooled_buffer() { give_back(); }

  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {data_, size_}; }
  /// Freezes the contents. The last owner of the result returns the buffer.
  /// @param meter counts the buffer while it has owners; may be null
  [[nodiscard]] shared_bytes share(std::shared_ptr<held_meter> meter = {}) &&;

private:
  friend class buffer_pool;
  void give_back() noexcept;

  std::shared_ptr<buffer_pool::shelf> shelf_;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

} // namespace troupe::net
