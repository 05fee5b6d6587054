#pragma once

#include "troupe/base/clock.hpp"
#include "troupe/engine/request.hpp"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

namespace troupe::engine {

/// Where a sequence stands with the kv_manager while it waits.
enum class admission : std::uint8_t { none, asked, answered };

/// What of a preempted sequence lies in host memory.
struct saved_blocks {
  /// Of the leading blocks; empty: nothing is there.
  std::vector<host_block> places;
  /// Positions that they hold.
  std::uint32_t positions = 0;
  /// The step that saves them.
  step_id step{};
  /// The order in which places were given up.
  std::uint64_t order = 0;
  /// The tickets of others whose rows in flight were to fill some of the blocks.
  std::vector<std::uint64_t> fillers;
  /// Another has made room for it: it comes back as soon as its blocks are there.
  bool due = false;
};

/// One request inside the scheduler. Positions are counted over prompt, delivered and generated
/// tokens; a position is computed when the KV of its token is in the cache.
struct sequence {
  /// The request; its `prompt` and `delivered` have moved into `tokens`.
  submission request;
  /// The order of arrival; a preempted sequence keeps it.
  std::uint64_t arrival = 0;
  /// Names the rows in flight that count; a new ticket disowns those under the old one.
  std::uint64_t ticket = 0;
  /// Every token that is known: prompt, delivered, generated.
  std::vector<token_id> tokens;
  std::uint32_t prompt_tokens = 0;
  /// The chained hashes of the full blocks of `tokens`; empty without prefix caching.
  std::vector<block_hash> hashes;

  /// The block table; while waiting, the pinned cached prefix.
  std::vector<block_id> blocks;
  /// Positions given to steps so far; runs ahead of `done`.
  std::uint32_t scheduled = 0;
  /// Positions whose step came back good.
  std::uint32_t done = 0;
  /// Positions given to steps at any time; what is below and given again is computed anew.
  std::uint32_t once_scheduled = 0;
  /// Leading blocks that are in the index or are somebody else's to commit.
  std::uint32_t settled_blocks = 0;
  /// Leading blocks that other sequences may share.
  std::uint32_t shared_blocks = 0;
  std::uint32_t rows_in_flight = 0;
  /// Tokens that are being sampled: positions known to come, of unknown token.
  std::uint32_t samples_in_flight = 0;
  /// The last step that reads or writes the blocks.
  step_id last_step{};
  /// The first step since it runs.
  step_id entered{};
  /// While waiting, what was saved when it was preempted.
  saved_blocks saved;
  bool running = false;
  /// Whether the executor knows the sequence.
  bool known = false;

  admission admitted = admission::none;
  /// When the kv_manager was asked last, on the scheduler's count of its own doings.
  std::uint64_t asked_at = 0;

  std::optional<time_point> deadline;
  time_point arrived{};
  std::optional<time_point> first_scheduled;
  std::optional<time_point> first_token;
  std::uint32_t cached_tokens = 0;
  bool first_chunk_sent = false;

  [[nodiscard]] std::uint32_t size() const { return static_cast<std::uint32_t>(tokens.size()); }
  /// Tokens of the answer that are known, delivered ones included.
  [[nodiscard]] std::uint32_t generated() const { return size() - prompt_tokens; }
  /// Positions given to steps or, while waiting, in host memory.
  [[nodiscard]] std::uint32_t computed() const { return std::max(scheduled, saved.positions); }
  /// Positions known or surely to come.
  [[nodiscard]] std::uint32_t expected() const { return size() + samples_in_flight; }
};

} // namespace troupe::engine
