#pragma once

#include "engine/text/models/vocabulary.hpp"

#include <cstdint>
#include <optional>
#include <vector>

namespace troupe::engine::text {

/// What two neighbouring tokens become, and how early.
struct merge_rule {
  std::uint32_t rank = 0;
  token_id merged = -1;
};

/// The merges of a BPE model, by pair: open addressing, one cache line a look-up.
class merge_table {
public:
  /// Reads ["a b", ...] or [["a", "b"], ...]; the earlier merge has the lower rank. A pair that
  /// stands twice has the later rank, as in Hugging Face tokenizers.
  /// @errors invalid_argument: an element of another form, or one that names a token that is not in
  ///         `tokens`, or whose result is not
  [[nodiscard]] static result<merge_table> load(const json_view& at, const vocabulary& tokens);

  [[nodiscard]] const merge_rule* find(token_id left, token_id right) const noexcept {
    if (slots_.empty())
      return nullptr;
    const std::uint64_t key = key_of(left, right);
    for (std::size_t slot = slot_of(key);; slot = (slot + 1) & (slots_.size() - 1)) {
      if (slots_[slot].key == key)
        return &slots_[slot].rule;
      if (slots_[slot].rule.merged < 0)
        return nullptr;
    }
  }

private:
  struct entry {
    std::uint64_t key = 0;
    merge_rule rule;
  };

  static std::uint64_t key_of(token_id left, token_id right) noexcept {
    // One more, so that no pair has the key 0 of an empty slot.
    return ((static_cast<std::uint64_t>(left) << 32U) | static_cast<std::uint32_t>(right)) + 1;
  }
  [[nodiscard]] std::size_t slot_of(std::uint64_t key) const noexcept {
    return static_cast<std::size_t>((key * 0x9E3779B97F4A7C15U) >> 32U) & (slots_.size() - 1);
  }
  void insert(token_id left, token_id right, merge_rule rule);

  std::vector<entry> slots_;
};

} // namespace troupe::engine::text
