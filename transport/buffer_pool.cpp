#include "transport/buffer_pool.hpp"

#include "troupe/base/check.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

namespace troupe::net {

namespace {

constexpr std::size_t smallest_bits = 8;
constexpr std::size_t largest_bits = 26;

/// The class of a size; classes above the last are not kept.
constexpr std::size_t class_of(std::size_t size) noexcept {
  return std::max<std::size_t>(std::bit_width(size - 1), smallest_bits) - smallest_bits;
}
constexpr std::size_t class_count = largest_bits - smallest_bits + 1;

/// What a buffer of `size` bytes really takes.
constexpr std::size_t capacity_of(std::size_t size) noexcept {
  const auto index = class_of(size);
  return index < class_count ? std::size_t{1} << (index + smallest_bits) : size;
}

constexpr std::align_val_t alignment{pool_alignment};

} // namespace

struct buffer_pool::shelf {
  explicit shelf(std::uint64_t most) noexcept : kept_bytes_max{most} {}
  shelf(const shelf&) = delete;
  shelf& operator=(const shelf&) = delete;
  ~shelf() {
    for (auto& list : free)
      for (auto* data : list)
        ::operator delete[](data, alignment);
  }

  std::byte* take(std::size_t size) {
    const auto index = class_of(size);
    const std::lock_guard guard{mutex};
    ++now.buffers_out;
    now.bytes_out += capacity_of(size);
    if (index < class_count && !free[index].empty()) {
      auto* data = free[index].back();
      free[index].pop_back();
      now.bytes_kept -= capacity_of(size);
      return data;
    }
    return static_cast<std::byte*>(::operator new[](capacity_of(size), alignment));
  }

  void give_back(std::byte* data, std::size_t size) noexcept {
    const auto index = class_of(size);
    {
      const std::lock_guard guard{mutex};
      --now.buffers_out;
      now.bytes_out -= capacity_of(size);
      if (index < class_count && now.bytes_kept + capacity_of(size) <= kept_bytes_max) {
        now.bytes_kept += capacity_of(size);
        free[index].push_back(data);
        return;
      }
    }
    ::operator delete[](data, alignment);
  }

  std::uint64_t kept_bytes_max;
  mutable std::mutex mutex;
  std::array<std::vector<std::byte*>, class_count> free;
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
