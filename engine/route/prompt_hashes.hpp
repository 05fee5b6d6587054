#pragma once

#include "engine/kv/block_hash.hpp"

#include <cstdint>
#include <map>
#include <span>
#include <string_view>
#include <vector>

namespace troupe::engine {

/// The chained hashes of the blocks of one request that a replica may find in its cache, computed
/// once for each block size, and only when a policy asks.
class prompt_hashes {
public:
  /// @param known  prompt and delivered tokens; like `salt` it must outlive this object
  prompt_hashes(block_hasher hasher, std::span<const token_id> known, std::string_view salt)
      : hasher_{hasher}, known_{known}, salt_{salt} {}

  /// @pre  block_size > 0
  /// @cost about 1 ns for each token, the first time
  [[nodiscard]] std::span<const block_hash> of(std::uint32_t block_size) {
    const auto [found, fresh] = by_size_.try_emplace(block_size);
    if (fresh && !known_.empty()) {
      // The last token is always computed, so that there is something to sample from.
      const auto blocks = (known_.size() - 1) / block_size;
      block_hash parent{};
      for (std::size_t i = 0; i < blocks; ++i) {
        parent = hasher_(parent, known_.subspan(i * block_size, block_size), salt_);
        found->second.push_back(parent);
      }
    }
    return found->second;
  }

  [[nodiscard]] std::uint64_t tokens() const noexcept { return known_.size(); }

private:
  block_hasher hasher_;
  std::span<const token_id> known_;
  std::string_view salt_;
  std::map<std::uint32_t, std::vector<block_hash>> by_size_;
};

} // namespace troupe::engine
