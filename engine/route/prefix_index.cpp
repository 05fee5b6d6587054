#include "engine/route/prefix_index.hpp"

#include "troupe/base/check.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

namespace troupe::engine {

namespace {

constexpr std::size_t first_capacity = 1024;
constexpr std::uint32_t word_bits = 64;
/// A part of a chain is probed at so many blocks at once: enough for their cache misses to overlap.
constexpr std::size_t fan = 16;
/// Odd, so that the hand meets every slot; far from any slot's neighbours in tables of all sizes.
constexpr std::size_t leap = 0x9E3779B97F4A7C15U;

} // namespace

prefix_index::prefix_index(std::size_t blocks_max) : blocks_max_{blocks_max} {
  TROUPE_CHECK(blocks_max > 0, "an index of no block");
  rebuild(first_capacity, stride_);
}

std::size_t prefix_index::find(word wanted) const noexcept {
  auto slot = home(wanted);
  while (key(slot) != wanted && key(slot) != 0)
    slot = next(slot);
  return slot;
}

const prefix_index::word* prefix_index::set_of(block_hash hash) const noexcept {
  const auto slot = find(value(hash));
  return key(slot) == 0 ? nobody_.data() : &slots_[slot * stride_ + 1];
}

bool prefix_index::is_empty(std::size_t slot) noexcept {
  const auto* set = members(slot);
  return std::all_of(set, set + stride_ - 1, [](word w) { return w == 0; });
}

void prefix_index::prefetch(block_hash hash) const noexcept {
  __builtin_prefetch(&slots_[home(value(hash)) * stride_]);
}

/// Moves every entry into a table of another size or with wider sets.
void prefix_index::rebuild(std::size_t capacity, std::size_t stride) {
  const auto old_stride = std::exchange(stride_, stride);
  const auto old = std::exchange(slots_, std::vector<word>(capacity * stride));
  mask_ = capacity - 1;
  hand_ = 0;
  nobody_.assign(stride - 1, 0);
  for (std::size_t at = 0; at < old.size(); at += old_stride) {
    if (old[at] == 0)
      continue;
    const auto slot = find(old[at]);
    std::copy_n(&old[at], old_stride, &slots_[slot * stride_]);
  }
}

/// Room for one hash more: a larger table, or the place of another one. The hand leaps, for a sweep
/// would leave the table empty behind it and so dense before it that probes never end.
void prefix_index::make_room() {
  if (size_ >= blocks_max_) {
    hand_ = (hand_ + leap) & mask_;
    while (key(hand_) == 0)
      hand_ = next(hand_);
    remove(hand_);
    ++evicted_;
  } else if ((size_ + 1) * 4 > (mask_ + 1) * 3) {
    rebuild((mask_ + 1) * 2, stride_);
  }
}

void prefix_index::insert(block_hash hash, std::uint32_t member) {
  TROUPE_CHECK(hash != block_hash{}, "a block without a hash");
  if (member >= members_max)
    return;
  if (const auto words = member / word_bits + 1; words + 1 > stride_)
    rebuild(mask_ + 1, words + 1);
  auto slot = find(value(hash));
  if (key(slot) == 0) {
    make_room();
    slot = find(value(hash));
    slots_[slot * stride_] = value(hash);
    ++size_;
  }
  members(slot)[member / word_bits] |= word{1} << member % word_bits;
}

void prefix_index::erase(block_hash hash, std::uint32_t member) {
  if (member / word_bits + 1 >= stride_)
    return;
  const auto slot = find(value(hash));
  if (key(slot) == 0)
    return;
  members(slot)[member / word_bits] &= ~(word{1} << member % word_bits);
  if (is_empty(slot))
    remove(slot);
}

/// Frees a slot and moves those behind it up that would not be found any more.
void prefix_index::remove(std::size_t slot) {
  --size_;
  for (auto i = next(slot); key(i) != 0; i = next(i)) {
    const auto way = (i - home(key(i))) & mask_;
    if (way < ((i - slot) & mask_))
      continue; // its home lies behind the free slot
    std::copy_n(&slots_[i * stride_], stride_, &slots_[slot * stride_]);
    slot = i;
  }
  std::fill_n(&slots_[slot * stride_], stride_, word{0});
}

void prefix_index::clear(std::uint32_t member) {
  if (member / word_bits + 1 >= stride_)
    return;
  const auto bit = word{1} << member % word_bits;
  for (std::size_t slot = 0; slot <= mask_; ++slot) {
    // A removal may move another entry here, which is then looked at in its turn.
    while (key(slot) != 0 && (members(slot)[member / word_bits] & bit) != 0) {
      members(slot)[member / word_bits] &= ~bit;
      if (is_empty(slot))
        remove(slot);
    }
  }
}

bool prefix_index::contains(block_hash hash, std::uint32_t member) const {
  return member / word_bits + 1 < stride_ &&
         (set_of(hash)[member / word_bits] >> member % word_bits & 1) != 0;
}

std::vector<block_hash> prefix_index::held_by(std::uint32_t member) const {
  std::vector<block_hash> out;
  for (std::size_t slot = 0; slot <= mask_; ++slot) {
    const block_hash hash{key(slot)};
    if (hash != block_hash{} && contains(hash, member))
      out.push_back(hash);
  }
  return out;
}

void prefix_index::bound(std::span<const block_hash> chain, std::span<depth_range> ranges) const {
  const auto size = chain.size();
  const auto step = std::max<std::size_t>(1, (size + fan - 1) / fan);
  for (std::size_t at = 0; at < size; at += step)
    prefetch(chain[at]);
  std::array<const word*, fan> sets{};
  std::size_t probes = 0;
  for (std::size_t at = 0; at < size; at += step)
    sets[probes++] = set_of(chain[at]);
  for (std::size_t w = 0; w + 1 < stride_; ++w) {
    word seen = 0;
    for (auto i = probes; i-- > 0;) {
      // Those whose deepest probed block this is.
      auto deepest = sets[i][w] & ~seen;
      seen |= deepest;
      const auto least = static_cast<std::uint32_t>(i * step + 1);
      const auto most = static_cast<std::uint32_t>(std::min(size, (i + 1) * step));
      for (; deepest != 0; deepest &= deepest - 1) {
        const auto member = w * word_bits + static_cast<std::size_t>(std::countr_zero(deepest));
        if (member >= ranges.size())
          break;
        auto& range = ranges[member];
        range = {.least = std::max(range.least, least), .most = std::max(range.most, most)};
      }
    }
  }
}

std::uint32_t prefix_index::settle(std::span<const block_hash> chain, std::uint32_t member,
                                   depth_range range) const {
  while (range.least < range.most) {
    const auto step = std::max<std::uint32_t>(1, (range.most - range.least + fan) / fan);
    const auto known = range.least - 1; // a block that it holds
    for (auto at = known + step; at < range.most; at += step)
      prefetch(chain[at]);
    auto deepest = known + (range.most - 1 - known) / step * step;
    while (deepest > known && !contains(chain[deepest], member))
      deepest -= step;
    range = {.least = deepest + 1, .most = std::min(range.most, deepest + step)};
  }
  return range.least;
}

} // namespace troupe::engine
