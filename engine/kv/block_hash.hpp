#pragma once

#include "troupe/base/ids.hpp"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace troupe::engine {

/// SipHash-2-4 over whole 64-bit words: keyed, so that nobody without the key can aim a collision,
/// and the same on every machine.
/// @source Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012
class keyed_hash {
public:
  constexpr keyed_hash(std::uint64_t key0, std::uint64_t key1) noexcept
      : v0_{key0 ^ 0x736f6d6570736575U}, v1_{key1 ^ 0x646f72616e646f6dU},
        v2_{key0 ^ 0x6c7967656e657261U}, v3_{key1 ^ 0x7465646279746573U} {}

  constexpr void add(std::uint64_t word) noexcept {
    ++words_;
    v3_ ^= word;
    round();
    round();
    v0_ ^= word;
  }

  /// The hash of the words added so far; the state is used up.
  [[nodiscard]] constexpr std::uint64_t finish() noexcept {
    add((words_ * 8) << 56);
    v2_ ^= 0xff;
    for (int i = 0; i < 4; ++i)
      round();
    return v0_ ^ v1_ ^ v2_ ^ v3_;
  }

private:
  constexpr void round() noexcept {
    v0_ += v1_;
    v1_ = std::rotl(v1_, 13) ^ v0_;
    v0_ = std::rotl(v0_, 32);
    v2_ += v3_;
    v3_ = std::rotl(v3_, 16) ^ v2_;
    v0_ += v3_;
    v3_ = std::rotl(v3_, 21) ^ v0_;
    v2_ += v1_;
    v1_ = std::rotl(v1_, 17) ^ v2_;
    v2_ = std::rotl(v2_, 32);
  }

  std::uint64_t v0_, v1_, v2_, v3_;
  std::uint64_t words_ = 0;
};

/// Names the contents of KV blocks: the hash of a block covers its tokens and, through the hash of
/// the block before it, all tokens from position 0.
class block_hasher {
public:
  /// @param key from the cluster's secret, the same on all nodes
  constexpr explicit block_hasher(std::uint64_t key) noexcept : key_{key} {}

  /// @param parent the hash of the block before, 0 for the first
  /// @param tokens exactly one block
  /// @param salt   the request's cache_salt; enters the first block only, and through it the others
  /// @return never 0
  /// @cost   about 1 ns for each token
  [[nodiscard]] constexpr block_hash operator()(block_hash parent, std::span<const token_id> tokens,
                                                std::string_view salt) const noexcept {
    keyed_hash hash{key_, ~key_ * 0x9E3779B97F4A7C15U};
    hash.add(value(parent));
    add_tokens(hash, tokens);
    if (value(parent) == 0)
      add_text(hash, salt);
    const auto sum = hash.finish();
    return block_hash{sum == 0 ? 1 : sum};
  }

private:
  static constexpr std::uint64_t low_word(token_id token) noexcept {
    return static_cast<std::uint32_t>(token);
  }

  static constexpr void add_tokens(keyed_hash& hash, std::span<const token_id> tokens) noexcept {
    hash.add(tokens.size());
    std::size_t i = 0;
    for (; i + 1 < tokens.size(); i += 2)
      hash.add(low_word(tokens[i]) | low_word(tokens[i + 1]) << 32);
    if (i < tokens.size())
      hash.add(low_word(tokens[i]));
  }

  static constexpr void add_text(keyed_hash& hash, std::string_view text) noexcept {
    hash.add(text.size());
    for (std::size_t at = 0; at < text.size(); at += 8) {
      std::uint64_t word = 0;
      for (std::size_t i = 0; i < 8 && at + i < text.size(); ++i)
        word |= std::uint64_t{static_cast<unsigned char>(text[at + i])} << (8 * i);
      hash.add(word);
    }
  }

  std::uint64_t key_;
};

} // namespace troupe::engine
