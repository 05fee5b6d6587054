#pragma once

#include "troupe/base/prng.hpp"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace troupe::engine {

/// A 64-bit hash of a sequence of values: equal sequences give equal values on every machine. It
/// tells checkpoints and settings apart; it does not withstand an adversary.
class fingerprint {
public:
  constexpr void add(std::uint64_t word) noexcept { state_ = splitmix64{state_ ^ word}(); }

  constexpr void add(double number) noexcept { add(std::bit_cast<std::uint64_t>(number)); }

  void add(std::span<const std::byte> bytes) noexcept {
    add(std::uint64_t{bytes.size()});
    while (!bytes.empty()) {
      const std::size_t taken = bytes.size() < 8 ? bytes.size() : 8;
      std::uint64_t word = 0;
      std::memcpy(&word, bytes.data(), taken);
      add(word);
      bytes = bytes.subspan(taken);
    }
  }

  void add(std::string_view text) noexcept { add(std::as_bytes(std::span{text})); }

  [[nodiscard]] constexpr std::uint64_t value() const noexcept { return state_; }

private:
  std::uint64_t state_ = 0x74726F757065ULL;
};

} // namespace troupe::engine
