#pragma once

#include "engine/kv/messages.hpp"
#include "engine/route/hub.hpp"
#include "engine/route/replica_table.hpp"
#include "troupe/base/clock.hpp"
#include "troupe/base/error.hpp"
#include "troupe/engine/request.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

namespace troupe::engine {

struct router_config {
  hub_id hub{};
  routing_policy policy = routing_policy::least_loaded;
  /// Streams that may be open; one more is busy.
  std::uint32_t max_streams = 4096;
  /// Keys the block hashes, as in the schedulers; from the cluster's secret.
  std::uint64_t hash_key = 0;
  /// A request is refused when so many replicas in a row died under it without one token between;
  /// one that had not accepted it yet counts as half a death.
  std::uint32_t deaths_max = 3;
  /// How long a stream that lost its replica waits for another one before it ends with the error;
  /// new requests of a model whose last replica died are taken to wait until as long after that.
  duration resume_limit = std::chrono::seconds{30};
  /// A stream whose last two replicas died, the second before it had accepted, looks for a third
  /// one after this: what took one may be taking all (a front that is cut off), and is noticed by
  /// then.
  duration suspect_wait = std::chrono::milliseconds{500};
  /// When a stream that lost its replica found all others busy, it asks again after this.
  duration busy_retry = std::chrono::milliseconds{50};
  /// A snapshot that did not come is asked for again after this.
  duration snapshot_retry = std::chrono::seconds{2};
  /// Blocks that the prefix index may know; see prefix_index for what happens beyond.
  std::size_t index_blocks_max = std::size_t{1} << 22;
};

/// Why a replica is gone: its death counts against the requests that it held, a drain does not.
enum class end_cause : std::uint8_t { died, draining };

/// What the router wants sent, to be carried out in the order of the members: a cancel of an old
/// attempt stands before the dispatch of the next one, a verdict before the first token.
struct router_actions {
  struct cancel {
    replica_id replica{};
    request_id id{};
  };
  struct dispatch {
    replica_id replica{};
    submission request;
  };
  /// The answer to a submission, exactly one for each that submit() took and that was not
  /// forgotten before. After an error the sink hears nothing.
  struct verdict {
    request_id id{};
    /// The replica that took it, or why none did.
    result<replica_id> outcome;
  };
  /// Replicas whose whole prefix index is wanted.
  std::vector<replica_id> snapshots;
  std::vector<cancel> cancels;
  std::vector<dispatch> dispatches;
  std::vector<verdict> verdicts;
  /// For the sinks of the requests that they name, in order. One with a finish reason is the last.
  std::vector<token_chunk> deliveries;
};

/// A snapshot and the counters of a router.
struct router_stats {
  hub_stats hub;
  /// Replicas chosen for a stream, migrations and retries included.
  std::uint64_t decisions = 0;
  /// Streams that went on at another replica (or the same one restarted), by whether the tokens are
  /// the very ones that they would have been: equal batch-invariant numerics, or none sent yet.
  std::uint64_t migrations_exact = 0;
  std::uint64_t migrations_inexact = 0;
  /// Requests refused because replicas died under them.
  std::uint64_t poisoned = 0;
  /// Streams that wait for a replica now.
  std::uint32_t parked = 0;
  /// Block hashes that the prefix index knows, and events missed and mended by a snapshot.
  std::uint64_t index_blocks = 0;
  std::uint64_t index_bytes = 0;
  std::uint64_t index_gaps = 0;
  /// Snapshots of a replica's index that were asked for: at its joining, after a gap, and again.
  std::uint64_t snapshots = 0;
  /// Prompt tokens of the dispatches, and those that the index took to be cached.
  std::uint64_t prompt_tokens = 0;
  std::uint64_t prompt_tokens_matched = 0;
};

/// The router of one front process as a pure state machine: admission, choice of a replica, the hub
/// with its journal, and migration. Events in, actions out, time passed in.
///
/// A stream is at a replica, or parked: its replica is gone and none can take it yet. When its
/// replica goes, the stream goes on elsewhere as the next attempt, with the tokens delivered so
/// far; the client sees a pause. Everything that carries an attempt and is not of the current one
/// is ignored, so events may be late, repeated, or come from a replica long given up.
/// Deterministic: the same events give the same actions. Actions are to be taken and carried out
/// after every event.
class router {
public:
  explicit router(router_config config);
  ~router();
  router(const router&) = delete;
  router& operator=(const router&) = delete;

  /// Opens a stream and dispatches it. The id, sink and attempt of the submission are given here.
  /// While no replica is up, but one died less than resume_limit ago and is expected back, the
  /// request waits for it and is refused with peer_down when that time is over.
  /// @errors draining; not_found: no replica of that model was ever up; peer_down: none is up now
  ///         nor expected back; busy: max_streams are open
  [[nodiscard]] result<request_id> submit(submission request, time_point now);
  /// The answer of the replica to a dispatch.
  void accepted(request_id id, replica_id replica, std::uint32_t attempt, time_point now);
  /// The replica did not take it. Busy (or any error that says it of this replica alone): others
  /// are tried first; a stream that lost its replica then waits, a new one is refused. With
  /// peer_down nothing is done: the replica is gone, and replica_down says so for all its streams.
  void rejected(request_id id, replica_id replica, std::uint32_t attempt, const error& why,
                time_point now);
  void tokens(const token_batch& batch, time_point now);
  /// The client withdrew: the replica is told and ends the stream; a parked one ends here.
  void cancel(request_id id, time_point now);
  /// The sink is gone: the replica is told, and nothing more is heard of the stream.
  void forget(request_id id);

  /// A replica serves. One that is known already was restarted: what the old one held is resumed.
  void replica_up(replica_facts facts, time_point now);
  /// A replica is gone. Its streams are resumed elsewhere, or parked.
  void replica_down(replica_id replica, error why, end_cause cause, time_point now);
  /// A replica takes no new streams; what runs there goes on.
  void replica_draining(replica_id replica);
  void load(replica_id replica, const replica_load& load);
  /// Changes of a replica's prefix index, or a snapshot. A hole in the numbers asks for a snapshot.
  void kv_events(const kv_index_report& report, time_point now);

  /// Parked streams, deadlines of requests and snapshots asked for: to be called at next_deadline.
  void expire(time_point now);
  [[nodiscard]] std::optional<time_point> next_deadline() const;
  /// Refuses new streams from here on.
  /// @return how many are open
  std::uint64_t drain();
  /// Ends every stream now: those without verdict are refused, the others get a last chunk `abort`.
  /// @return how many there were
  std::uint64_t cut_all();

  [[nodiscard]] router_actions take_actions();
  [[nodiscard]] router_stats stats() const;
  /// The KV blocks that a replica is known to hold, in no order; none unless the policy is
  /// `prefix`.
  [[nodiscard]] std::vector<block_hash> indexed(replica_id replica) const;
  /// Whether any replica of `model` was ever up.
  [[nodiscard]] bool knows(std::string_view model) const;

private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

} // namespace troupe::engine
