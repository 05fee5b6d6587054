#pragma once

#include "troupe/base/error.hpp"
#include "troupe/engine/request.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace troupe::engine {

/// Counters of a hub.
struct hub_stats {
  std::uint64_t opened = 0;
  std::uint64_t ended = 0;
  /// Chunks of an attempt that is not the current one, or whose offset is not the next.
  std::uint64_t dropped = 0;
  std::uint32_t open = 0;
};

/// The hub of one front process as a pure state machine: the journal of its streams. It is what
/// makes "no token twice, none lost" a local check, and what a migration starts from.
class hub {
public:
  /// @param id           of this front process; enters the upper bits of every request id
  /// @param max_streams  more are refused as busy
  hub(hub_id id, std::uint32_t max_streams);
  ~hub();
  hub(const hub&) = delete;
  hub& operator=(const hub&) = delete;

  /// Opens a stream at a replica: gives the submission its id, its sink address and attempt 1,
  /// journals it, and returns it as it is to be sent.
  /// @errors busy: max_streams are open
  [[nodiscard]] result<submission> open(submission request, replica_id replica);
  /// The chunk as it is to be handed to the sink, or nothing when it must be dropped. A chunk with
  /// a finish reason ends the stream. Only the first chunk of a stream says what was cached: later
  /// attempts find other caches, and the usage that a client is told does not change.
  [[nodiscard]] std::optional<token_chunk> deliver(const token_chunk& chunk);
  /// Ends a stream from this side: its last chunk, which stands after every token delivered, or
  /// nothing when no such stream is open.
  [[nodiscard]] std::optional<token_chunk> end(request_id id, finish_reason finish, error why);
  /// Forgets a stream without a last chunk: its submission was refused, or its sink is gone.
  void close(request_id id);
  /// Takes a stream from its replica, whose attempt ends with that. `resume` goes on with it.
  void park(request_id id);
  /// The same request for another replica: next attempt, with the tokens delivered so far.
  /// Empty when no such stream is open.
  [[nodiscard]] std::optional<submission> resume(request_id id, replica_id replica);
  /// The journal of a stream: its request with the current attempt and the tokens delivered. Null
  /// when no such stream is open; valid until the next call that changes the hub.
  [[nodiscard]] const submission* journal(request_id id) const;
  /// The replica that serves a stream now; nothing while it is parked.
  [[nodiscard]] std::optional<replica_id> replica_of(request_id id) const;
  /// The open streams of a replica, in the order of their ids.
  [[nodiscard]] std::vector<request_id> streams_of(replica_id replica) const;
  /// All open streams, in the order of their ids.
  [[nodiscard]] std::vector<request_id> streams() const;
  [[nodiscard]] hub_stats stats() const;

private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

} // namespace troupe::engine
