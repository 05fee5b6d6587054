#include "engine/exec/cuda/swap_space.hpp"

#include "troupe/base/log.hpp"

#include <cuda_runtime_api.h>
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <new>
#include <utility>

#include <sys/resource.h>
#include <unistd.h>

namespace troupe::engine::cuda {

namespace {

/// What is locked at once. The driver starts no step meanwhile: some milliseconds.
constexpr std::uint64_t slab_bytes = std::uint64_t{16} << 20U;
constexpr std::uint64_t page_bytes = 4096;

/// Has the system find memory for pages before the driver wants them, which then takes the less.
void touch(std::byte* begin, std::uint64_t bytes) {
  for (std::uint64_t at = 0; at < bytes; at += page_bytes)
    static_cast<volatile std::byte*>(begin)[at] = std::byte{0};
}

/// Copies the first vector of the cache there and back: a kernel is loaded when it is first wanted,
/// which waits for all that the device has to do, and better now than in a step.
result<void> warm(const swap_space::options& of, stream_ref on) {
  constexpr std::int64_t vector_bytes = 16;
  auto memory = pinned_buffer::make(2 * vector_bytes, "lists of KV blocks");
  if (!memory)
    return fail(memory.error());
  auto* const pair = new (memory->as<std::byte>() + vector_bytes) kernels::cuda::block_pair{};
  const kernels::cuda::block_copies_args args{.cache = of.cache,
                                              .blocks = 1,
                                              .parts = 1,
                                              .part_bytes = vector_bytes,
                                              .host = memory->data(),
                                              .pairs = pair,
                                              .count = 1};
  if (auto saved = kernels::cuda::save_blocks(args, on); !saved)
    return saved;
  if (auto restored = kernels::cuda::restore_blocks(args, on); !restored)
    return restored;
  return wait(on);
}

} // namespace

swap_space::swap_space(const options& of) : of_{of} {}

result<std::unique_ptr<swap_space>> swap_space::make(const options& of, stream_ref on) {
  std::unique_ptr<swap_space> made{new swap_space{of}};
  // Whole pages, of which none is locked twice.
  auto memory = kernels::buffer::make((made->bytes() + page_bytes - 1) / page_bytes * page_bytes);
  if (!memory)
    return fail(errc::out_of_memory,
                fmt::format("{} host places for KV blocks: {}", of.places, memory.error().note));
  made->memory_ = std::move(*memory);
  if (auto warmed = warm(of, on); !warmed)
    return fail(warmed.error());
  return made;
}

swap_space::~swap_space() {
  stop_ = true;
  if (locker_.joinable())
    locker_.join();
  for (std::uint64_t at = 0; at < locked_; at += slab_bytes)
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
  const std::uint64_t size = std::min(slab_bytes, memory_.size() - locked_);
  touch(slab, size);
  cudaError_t status = locked_ + size > of_.most_locked_bytes
                           ? cudaErrorMemoryAllocation
                           : cudaHostRegister(slab, size, cudaHostRegisterMapped);
  if (status == cudaSuccess) {
    // The kernels use the host's addresses.
    void* seen = nullptr;
    status = cudaHostGetDevicePointer(&seen, slab, 0);
    if (status == cudaSuccess && seen == slab) {
      locked_ += size;
      return true;
    }
    static_cast<void>(cudaHostUnregister(slab));
  }
  ended_ = true;
  // It is no error that a launch behind it should find.
  static_cast<void>(cudaGetLastError());
  log_warn("cuda:{}: {} of {} MiB of host memory for preempted sequences can be page-locked ({}); "
           "to and from the rest blocks are copied slowly",
           of_.device, locked_ >> 20U, memory_.size() >> 20U, cudaGetErrorString(status));
  return false;
}

/// Whether the GPU reaches all up to there, once what is missing has been locked.
bool swap_space::reach(std::uint64_t end) {
  if (locked_ >= end)
    return true;
  const std::lock_guard lock{locking_};
  while (locked_ < end)
    if (!lock_next())
      return false;
  return true;
}

/// By the kernel, or where it does not reach, part by part by the driver.
template <class Kernel, class Copy>
result<void> swap_space::copy(const list& copies, Kernel kernel, Copy one) {
  const auto pairs = copies.pairs();
  if (pairs.empty())
    return {};
  begin();
  const std::uint32_t last = std::ranges::max(pairs, {}, &kernels::cuda::block_pair::host).host;
  if (reach((last + std::uint64_t{1}) * bytes_per_place()))
    return kernel(kernels::cuda::block_copies_args{.cache = of_.cache,
                                                   .blocks = of_.blocks,
                                                   .parts = of_.parts,
                                                   .part_bytes = of_.part_bytes,
                                                   .host = memory_.data(),
                                                   .pairs = pairs.data(),
                                                   .count = std::ssize(pairs)});
  for (const auto& [block, host] : pairs)
    for (std::int64_t part = 0; part < of_.parts; ++part) {
      const auto bytes = static_cast<std::uint64_t>(of_.part_bytes);
      const std::uint64_t at = host * bytes_per_place() + static_cast<std::uint64_t>(part) * bytes;
      auto* const cached =
          static_cast<std::byte*>(of_.cache) + (part * of_.blocks + block) * of_.part_bytes;
      // One copy is of one kind of memory.
      const std::uint64_t split = std::clamp<std::uint64_t>(locked_, at, at + bytes) - at;
      for (const auto& [from, size] : {std::pair{std::uint64_t{0}, split}, {split, bytes - split}})
        if (size > 0)
          if (auto done = one(cached + from, memory_.as<std::byte>() + at + from, size); !done)
            return done;
    }
  return {};
}

result<void> swap_space::save(const list& copies, stream_ref on) {
  return copy(
      copies, [&](const auto& args) { return kernels::cuda::save_blocks(args, on); },
      [&](std::byte* cached, std::byte* kept, std::uint64_t bytes) {
        return download(kept, cached, bytes, on);
      });
}

result<void> swap_space::restore(const list& copies, stream_ref on) {
  return copy(
      copies, [&](const auto& args) { return kernels::cuda::restore_blocks(args, on); },
      [&](std::byte* cached, std::byte* kept, std::uint64_t bytes) {
        return upload(cached, kept, bytes, on);
      });
}

result<swap_space::list> swap_space::list::make(std::uint32_t places) {
  list made;
  auto memory =
      pinned_buffer::make(places * sizeof(kernels::cuda::block_pair), "lists of KV blocks");
  if (!memory)
    return fail(memory.error());
  made.memory_ = std::move(*memory);
  return made;
}

void swap_space::list::assign(std::span<const block_copy> copies) {
  auto* const pairs = memory_.as<kernels::cuda::block_pair>();
  for (std::size_t i = 0; i < copies.size(); ++i)
    pairs[i] = {value(copies[i].block), value(copies[i].host)};
  count_ = copies.size();
}

} // namespace troupe::engine::cuda
