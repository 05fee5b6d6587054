#pragma once

#include "engine/exec/cuda/runtime.hpp"
#include "engine/request/step.hpp"
#include "kernels/cpu/tensor.hpp"

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <span>
#include <thread>

namespace troupe::engine::cuda {

/// Places in host memory for the blocks of preempted sequences. The GPU's copy engines move them on
/// a stream of their own, while the kernels of steps run: a saved block is wanted by nobody before
/// its step ends, and a block that comes back by nobody before its step begins.
///
/// Page-locking takes a second for some GiB, and most servers never preempt: the addresses are
/// there from the start, and memory is taken from the first step on that saves something. It locks
/// the slabs that it needs, and a thread of its own the others, one after the other. Where the
/// system locks no more, the rest is plain memory, which the driver copies to and from, slowly and
/// while the caller waits.
class swap_space {
public:
  struct options {
    int device = 0;
    std::uint32_t places = 0;
    /// [parts, blocks, part_bytes]: the caches of all layers, of each the K of all blocks and then
    /// their V.
    void* cache = nullptr;
    std::int64_t blocks = 0;
    /// Two for each layer.
    std::int64_t parts = 0;
    /// Of one block in one part.
    std::int64_t part_bytes = 0;
    /// The most that is page-locked, and that the copy engines take from one row to the next; for
    /// tests.
    std::uint64_t most_locked_bytes = std::numeric_limits<std::uint64_t>::max();
    std::int64_t most_pitch = std::numeric_limits<std::int64_t>::max();
  };

  /// @errors out_of_memory: so many addresses are not to be had
  [[nodiscard]] static result<std::unique_ptr<swap_space>> make(const options& of);
  swap_space(const swap_space&) = delete;
  swap_space& operator=(const swap_space&) = delete;
  /// Waits for what is still copied.
  ~swap_space();

  /// Starts to page-lock, where nobody has.
  void begin();

  /// Copies blocks to their places, behind all that `kernels` has so far; nothing that it is given
  /// before join() may write these blocks.
  /// @pre    no place twice
  /// @async  on a stream of its own; waits where memory is not page-locked
  /// @cost   the link to the host carries the blocks; some microseconds of the host for each
  [[nodiscard]] result<void> save(std::span<const block_copy> copies, stream_ref kernels);
  /// Lets what `kernels` is given from now on wait for all that was saved.
  [[nodiscard]] result<void> join(stream_ref kernels);
  /// Lets what is copied from now on wait for all that `kernels` has so far.
  [[nodiscard]] result<void> stay_behind(stream_ref kernels) {
    return order(kernels, copies_.get());
  }
  /// Copies places to these blocks, behind all that was saved; what `kernels` is given from now on
  /// waits for it.
  /// @pre    nothing that `kernels` has touches these blocks, but for what the copies stay behind;
  ///         none is there twice
  /// @async  as save()
  [[nodiscard]] result<void> restore(std::span<const block_copy> copies, stream_ref kernels);

  /// How far from its begin the memory is page-locked, for tests.
  [[nodiscard]] std::uint64_t locked_bytes() const noexcept { return locked_; }

private:
  explicit swap_space(const options& of);

  [[nodiscard]] std::uint64_t bytes_per_place() const noexcept;
  [[nodiscard]] std::uint64_t slab_bytes() const noexcept;
  [[nodiscard]] std::byte* place(host_block at) noexcept {
    return memory_.as<std::byte>() + value(at) * bytes_per_place();
  }
  void lock_all();
  [[nodiscard]] bool lock_next();
  void reach(std::uint64_t end);
  [[nodiscard]] result<void> order(stream_ref first, stream_ref behind);
  enum class way : std::uint8_t { out, back };
  [[nodiscard]] result<void> copy(std::span<const block_copy> copies, way to);
  [[nodiscard]] result<void> copy_block(const block_copy& one, way to);

  options of_;
  kernels::buffer memory_;
  stream copies_;
  /// What one stream waits for of the other.
  event mark_;
  bool saving_ = false;
  /// Guards what follows: either the thread locks a slab, or a step does.
  std::mutex locking_;
  bool ended_ = false;
  std::atomic<std::uint64_t> locked_{0};
  std::atomic<bool> stop_{false};
  std::thread locker_;
};

} // namespace troupe::engine::cuda
