#pragma once

#include "engine/kv/block_hash.hpp"
#include "engine/route/router.hpp"

#include <map>
#include <set>
#include <string>
#include <unordered_map>

namespace troupe::engine {

/// Time-outs beyond this are none; it keeps sums of time points from overflowing.
constexpr auto longest_timeout = std::chrono::hours{24 * 365};

struct computed_with {
  std::uint64_t numerics = 0;
  bool batch_invariant = false;
};

/// What the router knows of a stream beyond its journal in the hub.
struct stream_state {
  /// The submitter has been told who serves it.
  bool answered = false;
  /// The replica of the current attempt has said that it took it.
  bool accepted = false;
  bool cancelled = false;
  /// It waits for its first replica.
  bool at_door = false;
  /// Deaths of replicas since the last token.
  std::uint32_t deaths = 0;
  /// The same in halves of a death: one that came before the replica had accepted the stream is
  /// less likely to be the stream's doing.
  std::uint32_t suspicion = 0;
  /// What the tokens so far were computed with, and what those of the current attempt would be.
  computed_with last;
  computed_with current;
  /// Whether the attempt that is to be accepted goes on with the very tokens.
  bool exact = true;
  /// Replicas that refused the stream since it was last looked for one.
  std::vector<replica_id> tried;
  /// When the client's time-out passes.
  std::optional<time_point> deadline;
  /// Set from the loss of a replica until another one accepts: when patience ends.
  std::optional<time_point> give_up_at;
  /// While parked because all were busy: when to ask them again.
  std::optional<time_point> retry_at;
  /// Why the last replica is gone, or did not take it.
  error why;
};

struct router::impl {
  explicit impl(const router_config& given);

  using streams = std::unordered_map<request_id, stream_state>;

  /// Whether a replica was found and the stream is on its way to it.
  [[nodiscard]] bool place(request_id id, stream_state& stream, time_point now);
  void sent(stream_state& stream, const placement& what, const chosen_replica& where,
            time_point now);
  void lose(request_id id, const error& why, end_cause cause, time_point now);
  void park(request_id id, stream_state& stream);
  [[nodiscard]] result<request_id> wait_at_door(submission request, time_point now);
  void give_up(request_id id, const stream_state& stream);
  void look_again(request_id id, stream_state& stream, time_point now);
  void answer(request_id id, stream_state& stream, replica_id replica);
  void took(stream_state& stream);
  void end(request_id id, finish_reason finish, error why);
  void cancel_at_replica(request_id id);
  void erase(request_id id);
  void deliver(const token_chunk& chunk, replica_id from);
  [[nodiscard]] stream_state* find(request_id id);
  [[nodiscard]] stream_state* find(request_id id, replica_id replica, std::uint32_t attempt);

  router_config config;
  block_hasher hasher;
  class hub hub;
  replica_table table;
  streams all;
  /// Of each model, until when a replica that died is expected back.
  std::map<std::string, time_point, std::less<>> expected_back;
  /// Streams without a replica, in the order of ids.
  std::set<request_id> parked;
  bool draining = false;
  router_actions actions;
  router_stats counters;
};

} // namespace troupe::engine
