#pragma once

#include "troupe/base/check.hpp"

#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace troupe::net {

/// Immutable bytes with shared owners: what travels out of band, never copied by the transport.
/// Copying one copies a reference. On the sending side the owner is let go when the bytes have left
/// this process; on the receiving side the last owner returns the buffer to the pool of the
/// transport, from any thread, even after the transport is gone.
class shared_bytes {
public:
  shared_bytes() noexcept = default;
  /// @param owner keeps `bytes` alive and unchanged while it lives
  shared_bytes(std::shared_ptr<const void> owner, std::span<const std::byte> bytes) noexcept
      : owner_{std::move(owner)}, bytes_{bytes} {}

  /// Takes a vector over, without a copy.
  [[nodiscard]] static shared_bytes adopt(std::vector<std::byte> bytes) {
    auto owner = std::make_shared<const std::vector<std::byte>>(std::move(bytes));
    const std::span<const std::byte> view{*owner};
    return {std::move(owner), view};
  }
  [[nodiscard]] static shared_bytes copy_of(std::span<const std::byte> bytes) {
    return adopt({bytes.begin(), bytes.end()});
  }

  [[nodiscard]] const std::byte* data() const noexcept { return bytes_.data(); }
  [[nodiscard]] std::size_t size() const noexcept { return bytes_.size(); }
  [[nodiscard]] bool empty() const noexcept { return bytes_.empty(); }
  [[nodiscard]] std::span<const std::byte> view() const noexcept { return bytes_; }

  /// A part of the same bytes that shares their owner. @pre offset + size <= this->size()
  [[nodiscard]] shared_bytes slice(std::size_t offset, std::size_t size) const {
    TROUPE_CHECK(offset <= bytes_.size() && size <= bytes_.size() - offset,
                 "slice {}+{} of {} bytes", offset, size, bytes_.size());
    return {owner_, bytes_.subspan(offset, size)};
  }

  /// Equal contents.
  friend bool operator==(const shared_bytes& a, const shared_bytes& b) noexcept {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
  }

private:
  std::shared_ptr<const void> owner_;
  std::span<const std::byte> bytes_;
};

} // namespace troupe::net
