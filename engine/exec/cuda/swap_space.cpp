#include "engine/exec/cuda/swap_space.hpp"

#include "troupe/base/log.hpp"

#include <cuda_runtime_api.h>
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include <sys/resource.h>
#include <unistd.h>

namespace troupe::engine::cuda {

namespace {

/// About what is locked at once. The driver starts no step meanwhile: some milliseconds.
constexpr std::uint64_t most_slab_bytes = std::uint64_t{16} << 20U;
constexpr std::uint64_t page_bytes = 4096;

/// Has the system find memory for pages before the driver wants them, which then takes the less.
void touch(std::byte* begin, std::uint64_t bytes) {
  for (std::uint64_t at = 0; at < bytes; at += page_bytes)
    static_cast<volatile std::byte*>(begin)[at] = std::byte{0};
}

} // namespace

swap_space::swap_space(const options& of) : of_{of} {}

/// Whole pages, of which none is locked twice.
std::uint64_t swap_space::bytes_per_place() const noexcept {
  const auto bytes = static_cast<std::uint64_t>(of_.parts * of_.part_bytes);
  return (bytes + page_bytes - 1) / page_bytes * page_bytes;
}

/// Whole places, for no copy may reach from one slab to the next.
std::uint64_t swap_space::slab_bytes() const noexcept {
  return std::max<std::uint64_t>(most_slab_bytes / bytes_per_place(), 1) * bytes_per_place();
}

result<std::unique_ptr<swap_space>> swap_space::make(const options& of) {
  std::unique_ptr<swap_space> made{new swap_space{of}};
  auto memory = kernels::buffer::make(of.places * made->bytes_per_place());
  if (!memory)
    return fail(errc::out_of_memory,
                fmt::format("{} host places for KV blocks: {}", of.places, memory.error().note));
  made->memory_ = std::move(*memory);
  int pitch = 0;
  if (auto told = check(cudaDeviceGetAttribute(&pitch, cudaDevAttrMaxPitch, of.device),
                        "what a copy engine takes");
      !told)
    return fail(told.error());
  made->of_.most_pitch = std::min<std::int64_t>(of.most_pitch, pitch);
  auto copies = make_stream();
  auto mark = make_event(false);
  if (!copies || !mark)
    return fail(copies ? mark.error() : copies.error());
  made->copies_ = std::move(*copies);
  made->mark_ = std::move(*mark);
  return made;
}

swap_space::~swap_space() {
  stop_ = true;
  if (locker_.joinable())
    locker_.join();
  if (copies_)
    static_cast<void>(wait(copies_.get()));
  for (std::uint64_t at = 0; at < locked_; at += slab_bytes())
    static_cast<void>(cudaHostUnregister(memory_.as<std::byte>() + at));
}

void swap_space::begin() {
  if (!locker_.joinable())
    locker_ = std::thread{[this] { lock_all(); }};
}

void swap_space::lock_all() {
  using clock = std::chrono::steady_clock;
  // The steps' own threads come first.
  static_cast<void>(setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), 10));
  if (!use_device(of_.device))
    return;
  while (!stop_) {
    const auto begun = clock::now();
    {
      const std::lock_guard lock{locking_};
      if (!lock_next())
        return;
    }
    std::this_thread::sleep_for(
        std::min<clock::duration>(clock::now() - begun, std::chrono::milliseconds{20}));
  }
}

/// Locks one more slab; false where there is none or it does not work.
bool swap_space::lock_next() {
  if (ended_ || locked_ >= memory_.size())
    return false;
  std::byte* const slab = memory_.as<std::byte>() + locked_;
  const std::uint64_t size = std::min(slab_bytes(), memory_.size() - locked_);
  touch(slab, size);
  const cudaError_t status = locked_ + size > of_.most_locked_bytes
                                 ? cudaErrorMemoryAllocation
                                 : cudaHostRegister(slab, size, cudaHostRegisterDefault);
  if (status == cudaSuccess) {
    locked_ += size;
    return true;
  }
  ended_ = true;
  // It is no error that a launch behind it should find.
  static_cast<void>(cudaGetLastError());
  log_warn("cuda:{}: {} of {} MiB of host memory for preempted sequences can be page-locked ({}); "
           "to and from the rest blocks are copied slowly",
           of_.device, locked_ >> 20U, memory_.size() >> 20U, cudaGetErrorString(status));
  return false;
}

/// Locks what is not yet locked up to there, as far as that works.
void swap_space::reach(std::uint64_t end) {
  if (locked_ >= end)
    return;
  const std::lock_guard lock{locking_};
  while (locked_ < end && lock_next()) {
  }
}

/// A block's parts are rows of the cache, far apart, and side by side at its place.
result<void> swap_space::copy_block(const block_copy& one, way to) {
  const auto bytes = static_cast<std::size_t>(of_.part_bytes);
  const auto parts = static_cast<std::size_t>(of_.parts);
  const std::size_t pitch = bytes * static_cast<std::size_t>(of_.blocks);
  std::byte* const cached = static_cast<std::byte*>(of_.cache) + value(one.block) * bytes;
  std::byte* const kept = place(one.host);
  const bool at_once = of_.blocks * of_.part_bytes <= of_.most_pitch;
  const std::size_t rows = at_once ? parts : 1;
  for (std::size_t part = 0; part < parts; part += rows) {
    std::byte* const in = cached + part * pitch;
    std::byte* const out = kept + part * bytes;
    const std::size_t apart = at_once ? pitch : bytes;
    const cudaError_t status = to == way::out
                                   ? cudaMemcpy2DAsync(out, bytes, in, apart, bytes, rows,
                                                       cudaMemcpyDeviceToHost, copies_.get())
                                   : cudaMemcpy2DAsync(in, apart, out, bytes, bytes, rows,
                                                       cudaMemcpyHostToDevice, copies_.get());
    if (auto good = check(status, "copying a KV block"); !good)
      return good;
  }
  return {};
}

result<void> swap_space::copy(std::span<const block_copy> copies, way to) {
  begin();
  const auto last = value(std::ranges::max(copies, {}, &block_copy::host).host);
  // To and from what cannot be page-locked the driver copies too, slowly.
  reach((last + std::uint64_t{1}) * bytes_per_place());
  for (const block_copy& one : copies)
    if (auto done = copy_block(one, to); !done)
      return done;
  return {};
}

/// Lets what `behind` is given from now on wait for all that `first` has so far.
result<void> swap_space::order(stream_ref first, stream_ref behind) {
  if (auto marked = record(mark_, first); !marked)
    return marked;
  return follow(mark_, behind);
}

result<void> swap_space::save(std::span<const block_copy> copies, stream_ref kernels) {
  if (copies.empty())
    return {};
  if (auto ordered = order(kernels, copies_.get()); !ordered)
    return ordered;
  saving_ = true;
  return copy(copies, way::out);
}

result<void> swap_space::join(stream_ref kernels) {
  return std::exchange(saving_, false) ? order(copies_.get(), kernels) : result<void>{};
}

result<void> swap_space::restore(std::span<const block_copy> copies, stream_ref kernels) {
  if (copies.empty())
    return {};
  if (auto copied = copy(copies, way::back); !copied)
    return copied;
  return order(copies_.get(), kernels);
}

} // namespace troupe::engine::cuda
