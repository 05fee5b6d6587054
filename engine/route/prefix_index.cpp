#include "engine/route/prefix_index.hpp"

#include "troupe/base/check.hpp"

#include <algorithm>
#include <bit>
#include <utility>

namespace troupe::engine {

namespace {

constexpr std::size_t first_capacity = 1024;
constexpr std::uint32_t word_bits = 64;
/// A gap is cut into so many parts at once: enough for the memory to overlap their misses.
constexpr std::ptrdiff_t fan = 16;
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

/// Cuts a gap at up to fan - 1 blocks, whose slots are fetched before the first of them is read.
void prefix_index::split(const gap& whole, std::span<const block_hash> chain,
                         std::vector<gap>& out) const {
  const auto step = std::max<std::ptrdiff_t>(1, (whole.hi - whole.lo + fan - 1) / fan);
  gap part{.lo = whole.lo, .hi = 0, .at_lo = whole.at_lo, .at_hi = nullptr};
  for (part.hi = whole.lo + step; part.hi < whole.hi; part.hi += step) {
    part.at_hi = set_of(chain[static_cast<std::size_t>(part.hi)]);
    out.push_back(part);
    part.lo = part.hi;
    part.at_lo = part.at_hi;
  }
  part.hi = whole.hi;
  part.at_hi = whole.at_hi;
  out.push_back(part);
}

/// Sets the depth of the members that end inside a gap of no block.
/// @return whether nothing of the gap is left to look at
bool prefix_index::settle(const gap& part, std::span<std::uint32_t> depths) const {
  bool ends = false;
  for (std::size_t w = 0; w + 1 < stride_; ++w) {
    auto lost = part.at_lo[w] & ~part.at_hi[w];
    ends = ends || lost != 0;
    if (part.hi - part.lo > 1)
      continue;
    for (; lost != 0; lost &= lost - 1) {
      const auto member = w * word_bits + static_cast<std::size_t>(std::countr_zero(lost));
      if (member < depths.size())
        depths[member] = std::max(depths[member], static_cast<std::uint32_t>(part.hi));
    }
  }
  return !ends || part.hi - part.lo <= 1;
}

void prefix_index::raise_depths(std::span<const block_hash> chain,
                                std::span<std::uint32_t> depths) const {
  if (chain.empty())
    return;
  gaps_.assign(1, {.lo = 0,
                   .hi = static_cast<std::ptrdiff_t>(chain.size()),
                   .at_lo = set_of(chain[0]),
                   .at_hi = nobody_.data()});
  while (!gaps_.empty()) {
    for (const auto& whole : gaps_) {
      const auto step = std::max<std::ptrdiff_t>(1, (whole.hi - whole.lo + fan - 1) / fan);
      for (auto at = whole.lo + step; at < whole.hi; at += step)
        prefetch(chain[static_cast<std::size_t>(at)]);
    }
    next_gaps_.clear();
    for (const auto& whole : gaps_)
      split(whole, chain, next_gaps_);
    std::erase_if(next_gaps_, [&](const gap& part) { return settle(part, depths); });
    std::swap(gaps_, next_gaps_);
  }
}

} // namespace troupe::engine
