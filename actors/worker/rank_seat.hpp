#pragma once

#include "actors/worker/rank_place.hpp"
#include "actors/worker/worker.hpp"

#include <memory>
#include <string>
#include <vector>

namespace troupe::actors {

struct rank_seat_options {
  rank_factory make;
  engine::load_progress progress;
  std::uint32_t rank = 0;
  /// What to call each rank, by rank.
  std::vector<std::string> names;
  /// The group; its end is that of the seat.
  rank_owner owner;
};

/// Carries a rank's frames to the seats of the others. From any thread.
class seat_channel;

struct rank_seat_state {
  static inline const char* name = "troupe.rank_seat";

  rank_seat_state() = default;
  rank_seat_state(const rank_seat_state&) = delete;
  rank_seat_state& operator=(const rank_seat_state&) = delete;
  /// Wakes the rank, which may wait for others, and ends it.
  ~rank_seat_state();

  std::shared_ptr<engine::rank_end> end;
  /// Owned by the end.
  seat_channel* channel = nullptr;
  std::uint32_t rank = 0;
  worker_actor worker;
  rank_owner owner;
  std::vector<rank_inbox> peers;
};

/// The behaviour of a rank's place in a group over several processes: the worker with its thread,
/// and the inbox for what the other ranks give in exchanges. It ends with its worker and with the
/// group that owns it; the end of another seat aborts the exchanges. It runs on CAF's pool and
/// never blocks.
rank_seat_actor::behavior_type rank_seat(rank_seat_actor::stateful_pointer<rank_seat_state> self,
                                         rank_seat_options options);

/// "rank 1 (node stage2)", for each rank.
[[nodiscard]] std::vector<std::string> names_of_ranks(const rank_order& whole);

} // namespace troupe::actors
