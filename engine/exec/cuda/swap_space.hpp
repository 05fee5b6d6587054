#pragma once

#include "engine/exec/cuda/runtime.hpp"
#include "engine/request/step.hpp"
#include "kernels/cpu/tensor.hpp"
#include "kernels/cuda/ops.hpp"

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <span>
#include <thread>

namespace troupe::engine::cuda {

/// Places in host memory for the blocks of preempted sequences, which the GPU itself reads and
/// writes.
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
    /// The caches, as kernels::cuda::block_copies_args has them.
    void* cache = nullptr;
    std::int64_t blocks = 0;
    std::int64_t parts = 0;
    std::int64_t part_bytes = 0;
    /// The most that is page-locked; for tests.
    std::uint64_t most_locked_bytes = std::numeric_limits<std::uint64_t>::max();
  };

  /// Waits for the stream.
  /// @errors out_of_memory: so many addresses are not to be had
  [[nodiscard]] static result<std::unique_ptr<swap_space>> make(const options& of, stream_ref on);
  swap_space(const swap_space&) = delete;
  swap_space& operator=(const swap_space&) = delete;
  /// @pre    nothing is in work that copies
  ~swap_space();

  /// Starts to page-lock, where nobody has.
  void begin();

  /// A step's copies where the GPU can read them, and the host.
  class list {
  public:
    list() noexcept = default;
    [[nodiscard]] static result<list> make(std::uint32_t places);
    /// @pre    no place twice; no step in work has this list
    void assign(std::span<const block_copy> copies);
    [[nodiscard]] std::span<const kernels::cuda::block_pair> pairs() const noexcept {
      return {memory_.as<kernels::cuda::block_pair>(), count_};
    }

  private:
    pinned_buffer memory_;
    std::size_t count_ = 0;
  };

  /// Copies blocks to their places, or back, ordered on the stream. The list lives until the stream
  /// has passed.
  [[nodiscard]] result<void> save(const list& copies, stream_ref on);
  [[nodiscard]] result<void> restore(const list& copies, stream_ref on);

  /// How far from its begin the memory is page-locked, for tests.
  [[nodiscard]] std::uint64_t locked_bytes() const noexcept { return locked_; }

private:
  explicit swap_space(const options& of);

  [[nodiscard]] std::uint64_t bytes_per_place() const noexcept {
    return static_cast<std::uint64_t>(of_.parts * of_.part_bytes);
  }
  [[nodiscard]] std::uint64_t bytes() const noexcept { return of_.places * bytes_per_place(); }
  void lock_all();
  [[nodiscard]] bool lock_next();
  [[nodiscard]] bool reach(std::uint64_t end);
  template <class Kernel, class Copy>
  [[nodiscard]] result<void> copy(const list& copies, Kernel kernel, Copy one);

  options of_;
  kernels::buffer memory_;
  /// Guards what follows: either the thread locks a slab, or a step does.
  std::mutex locking_;
  bool ended_ = false;
  std::atomic<std::uint64_t> locked_{0};
  std::atomic<bool> stop_{false};
  std::thread locker_;
};

} // namespace troupe::engine::cuda
