#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// Little-endian numbers and length-prefixed bytes, for what goes over the wire.
namespace troupe::net {

static_assert(std::endian::native == std::endian::little, "the wire is little-endian");

/// Appends to a vector.
class byte_writer {
public:
  explicit byte_writer(std::vector<std::byte>& out) noexcept : out_{out} {}

  template <std::unsigned_integral T>
  void number(T value) {
    raw({reinterpret_cast<const std::byte*>(&value), sizeof value});
  }
  /// The bytes, after their count in 32 bits. @pre fewer than 4 GiB
  void bytes(std::span<const std::byte> value) {
    number(static_cast<std::uint32_t>(value.size()));
    raw(value);
  }
  void text(std::string_view value) { bytes(std::as_bytes(std::span{value})); }
  void raw(std::span<const std::byte> value) {
    out_.insert(out_.end(), value.begin(), value.end());
  }

private:
  std::vector<std::byte>& out_;
};

/// Reads what byte_writer wrote, from bytes that nobody vouches for. Running over the end makes the
/// reader bad; a bad reader yields zeros and empty spans, so that one check at the end is enough.
class byte_reader {
public:
  explicit byte_reader(std::span<const std::byte> in) noexcept : in_{in} {}

  template <std::unsigned_integral T>
  [[nodiscard]] T number() noexcept {
    T value{};
    if (const auto from = raw(sizeof value); !from.empty())
      std::memcpy(&value, from.data(), sizeof value);
    return value;
  }
  [[nodiscard]] std::span<const std::byte> bytes() noexcept { return raw(number<std::uint32_t>()); }
  /// A text of at most `size_max` bytes; a longer one makes the reader bad.
  [[nodiscard]] std::string text(std::size_t size_max) {
    const auto from = bytes();
    if (from.size() > size_max) {
      good_ = false;
      return {};
    }
    return {reinterpret_cast<const char*>(from.data()), from.size()};
  }
  [[nodiscard]] std::span<const std::byte> raw(std::size_t size) noexcept {
    if (!good_ || size > in_.size()) {
      good_ = false;
      return {};
    }
    const auto out = in_.first(size);
    in_ = in_.subspan(size);
    return out;
  }

  [[nodiscard]] bool good() const noexcept { return good_; }
  [[nodiscard]] std::size_t left() const noexcept { return in_.size(); }
  /// Everything was read, and nothing more than that.
  [[nodiscard]] bool complete() const noexcept { return good_ && in_.empty(); }

private:
  std::span<const std::byte> in_;
  bool good_ = true;
};

} // namespace troupe::net
