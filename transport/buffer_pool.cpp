#include "troupe/transport/buffer_pool.hpp"

#include "troupe/base/check.hpp"

#include <sys/mman.h>

#include <array>
#include <bit>
#include <mutex>
#include <new>
#include <unordered_set>
#include <utility>
#include <vector>

namespace troupe::net {

namespace {

constexpr std::size_t smallest_bits = 8;
constexpr std::size_t largest_bits = 26;
/// Classes between a size and its double, so that a payload that is a power of two and its meta
/// bytes do not take twice their size.
constexpr std::size_t steps = 4;
constexpr std::size_t class_count = (largest_bits - smallest_bits) * steps + 1;

/// The class of a size; classes from class_count on are not kept.
constexpr std::size_t class_of(std::size_t size) noexcept {
  const auto bits = static_cast<std::size_t>(std::bit_width(size - 1));
  if (bits <= smallest_bits)
    return 0;
  const auto below = std::size_t{1} << (bits - 1);
  const auto step = below / steps;
  return (bits - 1 - smallest_bits) * steps + (size - below + step - 1) / step;
}

/// What a buffer of `size` bytes really takes.
constexpr std::size_t capacity_of(std::size_t size) noexcept {
  const auto index = class_of(size);
  if (index >= class_count)
    return size;
  if (index == 0)
    return std::size_t{1} << smallest_bits;
  const auto below = std::size_t{1} << (smallest_bits + (index - 1) / steps);
  return below + ((index - 1) % steps + 1) * (below / steps);
}
static_assert(capacity_of(1) == 256 && capacity_of(257) == 320 && capacity_of(4096) == 4096);
static_assert(capacity_of(65536 + 60) == 81920 && class_of(1U << largest_bits) == class_count - 1);

constexpr std::size_t huge_page_bytes = std::size_t{2} << 20;
/// Smaller buffers come from the heap: not many of them lie on one page anyway.
constexpr std::size_t slab_piece_bytes_min = std::size_t{32} << 10;

constexpr bool is_piece(std::size_t capacity) noexcept {
  return capacity >= slab_piece_bytes_min && capacity <= huge_page_bytes / 2;
}

constexpr std::size_t alignment_of(std::size_t capacity) noexcept {
  return capacity >= huge_page_bytes ? huge_page_bytes : pool_alignment;
}

/// Memory of the system's, on huge pages where it is large and the system has some.
std::byte* allocate(std::size_t capacity) {
  const std::align_val_t alignment{alignment_of(capacity)};
  auto* const data = static_cast<std::byte*>(::operator new[](capacity, alignment));
  // Advice: where the system does not take it, pages are small.
  if (capacity >= huge_page_bytes)
    static_cast<void>(::madvise(data, capacity / huge_page_bytes * huge_page_bytes, MADV_HUGEPAGE));
  return data;
}

void release(std::byte* data, std::size_t capacity) noexcept {
  ::operator delete[](data, std::align_val_t{alignment_of(capacity)});
}

/// The huge page that an address lies on.
std::uintptr_t page_of(const std::byte* data) noexcept {
  return reinterpret_cast<std::uintptr_t>(data) / huge_page_bytes;
}

} // namespace

/// Free buffers by class. Those between 32 KiB and 1 MiB are pieces of slabs, which are one huge
/// page each and stay until the end.
struct buffer_pool::shelf {
  explicit shelf(std::uint64_t most) noexcept : kept_bytes_max{most} {}
  shelf(const shelf&) = delete;
  shelf& operator=(const shelf&) = delete;
  ~shelf() {
    for (std::size_t index = 0; index < class_count; ++index)
      for (auto* data : free[index])
        if (!slabs.contains(page_of(data)))
          release(data, capacities[index]);
    for (const auto page : slabs)
      release(reinterpret_cast<std::byte*>(page * huge_page_bytes), huge_page_bytes);
  }

  std::byte* take(std::size_t size) {
    const auto index = class_of(size);
    const auto capacity = capacity_of(size);
    const std::lock_guard guard{mutex};
    ++now.buffers_out;
    now.bytes_out += capacity;
    if (index >= class_count)
      return allocate(capacity);
    capacities[index] = capacity;
    const auto slab_bytes = (slabs.size() + 1) * huge_page_bytes;
    if (free[index].empty() && is_piece(capacity) && slab_bytes <= kept_bytes_max / 2)
      cut_slab(index, capacity);
    if (free[index].empty())
      return allocate(capacity);
    auto* data = free[index].back();
    free[index].pop_back();
    now.bytes_kept -= capacity;
    return data;
  }

  /// Makes the pieces of a new slab free, the first on top.
  void cut_slab(std::size_t index, std::size_t capacity) {
    auto* const slab = allocate(huge_page_bytes);
    slabs.insert(page_of(slab));
    const auto pieces = huge_page_bytes / capacity;
    for (auto piece = pieces; piece-- > 0;)
      free[index].push_back(slab + piece * capacity);
    now.bytes_kept += pieces * capacity;
  }

  void give_back(std::byte* data, std::size_t size) noexcept {
    const auto index = class_of(size);
    const auto capacity = capacity_of(size);
    {
      const std::lock_guard guard{mutex};
      --now.buffers_out;
      now.bytes_out -= capacity;
      const bool fits = index < class_count && now.bytes_kept + capacity <= kept_bytes_max;
      if (fits || (is_piece(capacity) && slabs.contains(page_of(data)))) {
        now.bytes_kept += capacity;
        free[index].push_back(data);
        return;
      }
    }
    release(data, capacity);
  }

  std::uint64_t kept_bytes_max;
  mutable std::mutex mutex;
  std::array<std::vector<std::byte*>, class_count> free;
  std::array<std::size_t, class_count> capacities{};
  std::unordered_set<std::uintptr_t> slabs;
  buffer_pool_stats now;
};

buffer_pool::buffer_pool(std::uint64_t kept_bytes_max)
    : shelf_{std::make_shared<shelf>(kept_bytes_max)} {}

pooled_buffer buffer_pool::take(std::size_t size) {
  TROUPE_CHECK(size > 0, "an empty buffer needs no pool");
  pooled_buffer out;
  out.data_ = shelf_->take(size);
  out.size_ = size;
  out.shelf_ = shelf_;
  return out;
}

buffer_pool_stats buffer_pool::stats() const {
  const std::lock_guard guard{shelf_->mutex};
  return shelf_->now;
}

pooled_buffer::pooled_buffer(pooled_buffer&& other) noexcept
    : shelf_{std::move(other.shelf_)}, data_{std::exchange(other.data_, nullptr)},
      size_{std::exchange(other.size_, 0)} {}

pooled_buffer& pooled_buffer::operator=(pooled_buffer&& other) noexcept {
  if (this != &other) {
    give_back();
    shelf_ = std::move(other.shelf_);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

void pooled_buffer::give_back() noexcept {
  if (data_ != nullptr)
    shelf_->give_back(std::exchange(data_, nullptr), size_);
}

shared_bytes pooled_buffer::share(std::shared_ptr<held_meter> meter) && {
  const auto size = size_;
  auto* data = std::exchange(data_, nullptr);
  if (data == nullptr)
    return {};
  if (meter != nullptr)
    meter->bytes += size;
  std::shared_ptr<const void> owner{
      data, [shelf = std::move(shelf_), meter = std::move(meter), size](std::byte* bytes) {
        shelf->give_back(bytes, size);
        if (meter == nullptr)
          return;
        const auto before = meter->bytes.fetch_sub(size);
        if (before > meter->bytes_max && before - size <= meter->bytes_max && meter->back_in_bounds)
          meter->back_in_bounds();
      }};
  return {std::move(owner), {data, size}};
}

} // namespace troupe::net
