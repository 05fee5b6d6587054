#pragma once

#include "engine/exec/cuda/runtime.hpp"
#include "kernels/cuda/multiprocessors.hpp"

#include <memory>
#include <span>
#include <vector>

struct CUgreenCtx_st;

namespace troupe::engine::cuda {

/// Destroys a green context; its stream has to be gone.
struct green_context_closer {
  void operator()(CUgreenCtx_st* context) const noexcept;
};

/// A stream whose work runs on some of the multiprocessors alone, by a green context of the
/// driver's. Move-only.
class lane {
public:
  [[nodiscard]] stream_ref get() const noexcept { return stream_.get(); }
  [[nodiscard]] int multiprocessors() const noexcept { return count_; }

private:
  friend class lane_pair;

  // In this order: the stream ends first.
  std::unique_ptr<CUgreenCtx_st, green_context_closer> context_;
  stream stream_;
  kernels::cuda::multiprocessor_share share_;
  int count_ = 0;
};

/// Two lanes on multiprocessors that are each other's complement, for passes that run at once. One
/// thread at a time. Move-only.
class lane_pair {
public:
  /// Divides the device in use, with at least so many multiprocessors for answers, and lets both
  /// lanes run a kernel.
  /// @errors unsupported: the driver has no green contexts, or does not divide the device so
  [[nodiscard]] static result<lane_pair> make(int device, int for_answers);

  [[nodiscard]] const lane& answers() const noexcept { return answers_; }
  [[nodiscard]] const lane& prompts() const noexcept { return prompts_; }

  /// Lets both lanes go on when `main` has come here.
  [[nodiscard]] result<void> fork(stream_ref main) const;
  /// Lets `main` go on when both lanes have come here.
  [[nodiscard]] result<void> join(stream_ref main) const;
  /// Waits on the host until neither lane has anything to do.
  [[nodiscard]] result<void> wait_for_both() const;

  /// Milliseconds from the last fork to where each lane came to the last join.
  /// @pre    the stream that was joined has passed that
  struct times {
    float answers = 0;
    float prompts = 0;
  };
  [[nodiscard]] result<times> last_times() const;

private:
  lane answers_;
  lane prompts_;
  event forked_;
  event answered_;
  event prompted_;
};

/// Pairs for some numbers of multiprocessors for answers, ascending.
class lane_pairs {
public:
  /// Those that the driver gives.
  /// @errors as lane_pair::make, where it gives none
  [[nodiscard]] static result<lane_pairs> make(int device);

  [[nodiscard]] bool empty() const noexcept { return pairs_.empty(); }
  /// The multiprocessors for answers that there are.
  [[nodiscard]] std::span<const int> offered() const noexcept { return offered_; }
  /// The pair with at least so many, or else the one with most.
  /// @pre    not empty()
  [[nodiscard]] const lane_pair& with(int for_answers) const;
  /// Waits on the host until no lane has anything to do.
  void drain() const noexcept;

private:
  std::vector<lane_pair> pairs_;
  std::vector<int> offered_;
};

} // namespace troupe::engine::cuda
