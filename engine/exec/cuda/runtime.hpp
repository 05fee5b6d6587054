#pragma once

#include "kernels/cuda/ops.hpp"
#include "troupe/base/error.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

struct CUevent_st;

/// The parts of CUDA's runtime that the executor uses, owned: every handle is move-only and freed
/// by its destructor, every error is a value.
namespace troupe::engine::cuda {

using kernels::cuda::stream_ref;

/// The error behind a status of CUDA's runtime (cudaError_t), with `what` before it.
[[nodiscard]] result<void> check(int status, std::string_view what);

/// A GPU, as far as one has to know it.
struct device_info {
  int index = 0;
  std::string name;
  int major = 0;
  int minor = 0;
  std::uint64_t total_bytes = 0;
  /// What tells it from every other.
  std::array<unsigned char, 16> uuid{};
};

/// Finds a device and makes it this thread's.
/// @errors not_found: there is no GPU, or not that many; unsupported: the driver is older than
///         CUDA 13, or the GPU is of another generation than the kernels are made for;
///         look_whether_usable()'s
[[nodiscard]] result<device_info> open_device(int index);

/// Keeps this thread on the cores beside the device, where the machine tells which these are.
void stay_beside(int index);

/// Makes a device this thread's.
/// @errors io_failure: somebody has it for themselves
[[nodiscard]] result<void> use_device(int index);

/// Bytes of the device that nobody has taken.
[[nodiscard]] result<std::uint64_t> free_bytes();

/// Memory of the device, or page-locked memory of the host.
template <bool OfHost>
class cuda_memory {
public:
  cuda_memory() noexcept = default;
  cuda_memory(cuda_memory&& other) noexcept
      : data_{std::exchange(other.data_, nullptr)}, bytes_{std::exchange(other.bytes_, 0)},
        borrowed_{std::exchange(other.borrowed_, false)} {}
  cuda_memory& operator=(cuda_memory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(borrowed_, other.borrowed_);
    return *this;
  }
  cuda_memory(const cuda_memory&) = delete;
  cuda_memory& operator=(const cuda_memory&) = delete;
  ~cuda_memory();

  /// @errors out_of_memory: says how many bytes were wanted, for what, and how many are free
  [[nodiscard]] static result<cuda_memory> make(std::size_t bytes, std::string_view what);

  /// A part of it, which does not outlive it.
  /// @pre  offset + bytes <= size()
  [[nodiscard]] cuda_memory part(std::size_t offset, std::size_t bytes) const noexcept {
    cuda_memory made;
    made.data_ = static_cast<std::byte*>(data_) + offset;
    made.bytes_ = bytes;
    made.borrowed_ = true;
    return made;
  }

  [[nodiscard]] void* data() const noexcept { return data_; }
  template <class T>
  [[nodiscard]] T* as() const noexcept {
    return static_cast<T*>(data_);
  }
  [[nodiscard]] std::size_t size() const noexcept { return bytes_; }

private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  bool borrowed_ = false;
};

using device_buffer = cuda_memory<false>;
using pinned_buffer = cuda_memory<true>;

struct stream_closer {
  void operator()(CUstream_st* stream) const noexcept;
};
struct event_closer {
  void operator()(CUevent_st* event) const noexcept;
};
using stream = std::unique_ptr<CUstream_st, stream_closer>;
using event = std::unique_ptr<CUevent_st, event_closer>;

[[nodiscard]] result<stream> make_stream();
/// `timed` events can be asked for the time between them.
[[nodiscard]] result<event> make_event(bool timed);
[[nodiscard]] result<void> record(const event& mark, stream_ref on);
/// What is enqueued from now on waits until the event, as it was last recorded, has passed.
[[nodiscard]] result<void> follow(const event& mark, stream_ref on);
/// Whether the stream has passed the event; also when asking fails, so that wait() tells why.
[[nodiscard]] bool passed(const event& mark) noexcept;
/// Whether what is enqueued becomes a graph.
[[nodiscard]] bool capturing(stream_ref on) noexcept;
/// Waits on the host until the stream has passed the event.
[[nodiscard]] result<void> wait(const event& mark);
[[nodiscard]] result<void> wait(stream_ref all);
[[nodiscard]] result<float> milliseconds_between(const event& begin, const event& end);

/// Copies, ordered on the stream.
[[nodiscard]] result<void> upload(void* to, const void* from, std::size_t bytes, stream_ref on);
[[nodiscard]] result<void> download(void* to, const void* from, std::size_t bytes, stream_ref on);

} // namespace troupe::engine::cuda
