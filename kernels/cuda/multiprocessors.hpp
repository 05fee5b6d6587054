#pragma once

#include "kernels/cuda/ops.hpp"

#include <utility>

/// How many multiprocessors a stream's kernels run on. Grids of kernels whose blocks stay, and the
/// choice of tiles, are made for so many.
namespace troupe::kernels::cuda {

/// Those of the device in use, or what a multiprocessor_share says of the stream.
/// @cost   asks the runtime twice, tens of nanoseconds
[[nodiscard]] int count_multiprocessors(stream_ref stream);

/// Says, as long as it lives, that a stream has only a part of the multiprocessors: one of a green
/// context. A number that is wrong makes kernels slower, never wrong. Move-only.
class multiprocessor_share {
public:
  multiprocessor_share() noexcept = default;
  /// @pre    nothing is said of the stream yet
  multiprocessor_share(stream_ref stream, int count);
  multiprocessor_share(multiprocessor_share&& other) noexcept
      : stream_{std::exchange(other.stream_, nullptr)} {}
  multiprocessor_share& operator=(multiprocessor_share&& other) noexcept {
    std::swap(stream_, other.stream_);
    return *this;
  }
  multiprocessor_share(const multiprocessor_share&) = delete;
  multiprocessor_share& operator=(const multiprocessor_share&) = delete;
  ~multiprocessor_share();

private:
  stream_ref stream_ = nullptr;
};

} // namespace troupe::kernels::cuda
