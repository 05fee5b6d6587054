#pragma once

#include "transport/caf/envelope.hpp"

#include <cstdint>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace troupe::net::seam {

/// known: no connection, but it may be dialled; dialling: messages wait; up; gone: over. A node
/// that is connected anew gets another peer object.
enum class peer_state : std::uint8_t { known, dialling, up, gone };

/// A request that the peer has not answered yet.
struct open_request {
  caf::weak_actor_ptr from;
  caf::message_id response;
};

/// What this node knows of another one, shared by the host and by all proxies of that node.
///
/// Its mutex may be taken while CAF holds the mutex of an actor or of a proxy registry. So nothing
/// of CAF that locks is called while it is held.
class peer {
public:
  explicit peer(caf::node_id node) : node_{std::move(node)} {}

  [[nodiscard]] const caf::node_id& node() const noexcept { return node_; }
  [[nodiscard]] peer_state state() const;
  [[nodiscard]] std::optional<node_id> connection() const;

  void listens_at(const address& where);
  /// Sends, or keeps for when the connection is there. @param dial set when somebody has to dial
  [[nodiscard]] result<void> send(transport& over, parcel what, pressure how,
                                  std::optional<address>& dial);
  /// The connection is there: sends what waits. @return false when the node is gone already
  bool up(transport& over, const node_id& id);
  /// The connection is not there any more, or was not made.
  void down();

  /// Writes down that an answer is awaited.
  void asks(caf::actor_id from, const open_request& what);
  void answered(caf::actor_id from, caf::message_id response);
  /// Writes down that the node hears of the end of a local actor. @return false when it does
  /// already
  [[nodiscard]] bool watches(caf::actor_id actor);
  [[nodiscard]] std::vector<caf::actor_id> take_watched();
  /// The requests that nobody will answer any more.
  [[nodiscard]] std::vector<open_request> take_requests();

private:
  struct waiting {
    parcel what;
    pressure how;
  };
  struct key {
    caf::actor_id from;
    std::uint64_t request;
    friend bool operator==(const key&, const key&) = default;
  };
  struct hash {
    std::size_t operator()(const key& k) const noexcept {
      return static_cast<std::size_t>(k.from * 0x9E3779B97F4A7C15U ^ k.request);
    }
  };

  const caf::node_id node_;
  mutable std::mutex mutex_;
  peer_state state_ = peer_state::known;
  node_id id_;
  address address_;
  std::vector<waiting> waiting_;
  std::uint64_t waiting_bytes_ = 0;
  std::mutex requests_mutex_;
  std::unordered_map<key, open_request, hash> requests_;
  std::unordered_set<caf::actor_id> watched_;
};

} // namespace troupe::net::seam
