#pragma once

#include "troupe/base/clock.hpp"
#include "troupe/base/error.hpp"
#include "troupe/transport/node_id.hpp"
#include "troupe/transport/shared_bytes.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

/// How messages travel between nodes: the contract that transport/ucx and transport/inproc keep and
/// that transport/caf builds on. It knows bytes, nodes and connections; what the bytes mean is the
/// caller's.
///
/// What holds between two nodes
/// - Messages from one node to another arrive in the order of the calls of one sending thread,
///   whatever their sizes, each once, or not at all when peer_down ends the connection.
/// - A node is up or down: peer_up and peer_down alternate for each node id, starting with peer_up.
/// - An end that was not agreed on (timeout, lost link, close) is final: this side never talks to
///   that node id again, and a late return is refused ("fenced"). Who is fenced starts anew with a
///   fresh node id. Only after a drain may the same ids connect again.
namespace troupe::net {

/// One entry of what both ends of a connection must agree on, e.g. {"models", hash of that
/// section}. Parts are compared by name, so that a refusal says which differ.
struct config_part {
  std::string name;
  std::uint64_t hash = 0;

  friend bool operator==(const config_part&, const config_part&) = default;
};

/// Who a node is and what it insists on in a peer.
struct identity {
  node_id id;
  /// The node's name in the cluster file; two live nodes never share one.
  std::string name;
  /// The hash of the table of message types; 0 agrees with 0 alone.
  std::uint64_t types_hash = 0;
  /// At most 64 parts. None at all agree with any: those of a client.
  std::vector<config_part> config;
  /// The cluster's secret. Both ends prove that they know it (HMAC-SHA-256, challenge and response)
  /// and never send it. Empty: no secret, and then listen() takes loopback addresses alone.
  std::vector<std::byte> secret;
};

/// The clocks of a connection.
struct timing {
  /// Silence after which a node says that it lives.
  duration heartbeat = std::chrono::milliseconds{200};
  /// Silence after which a peer is declared dead.
  duration dead_after = std::chrono::seconds{1};
  /// What dialling and the hello may take together.
  duration dial_timeout = std::chrono::seconds{5};
  /// What a drain may take before the connection is closed with messages left.
  duration drain_timeout = std::chrono::seconds{5};
};

/// The bounds of a node. Every queue of the transport has one of these.
struct limits {
  /// The largest payload of one message, sent or received; below 4 GiB.
  std::uint64_t payload_bytes_max = (std::uint64_t{1} << 30) + (std::uint64_t{1} << 20);
  /// Bytes for one peer that were accepted and have not left yet; above it send() says busy. One
  /// message is always accepted by an empty queue.
  std::uint64_t queue_bytes_max = std::uint64_t{64} << 20;
  /// Bytes that a peer may have under way to this node: the credit that this node grants.
  std::uint64_t window_bytes = std::uint64_t{64} << 20;
  /// Received payload bytes of one peer that their owners have not let go. Above it the peer gets
  /// no new credit, and its senders see busy.
  std::uint64_t held_bytes_max = std::uint64_t{1} << 30;
  /// Small messages that wait together travel as one frame of at most this size; 0 turns it off.
  std::uint32_t batch_bytes_max = 7168;
  /// Frames that wait for an earlier one; more end the connection.
  std::uint32_t reorder_frames_max = 65536;
  /// Connections at a time, those in the hello included.
  std::uint32_t connections_max = 1024;
};

/// What both transports need to make a node.
struct node_options {
  identity self;
  net::timing timing;
  net::limits limits;
};

/// A header longer than this is refused by send(). What is larger belongs into the payload.
inline constexpr std::size_t header_bytes_max = 7168;

/// A peer as its hello describes it.
struct peer_facts {
  node_id id;
  std::string name;
  /// Where others reach it; port 0 when it does not listen.
  address listens_at;
  /// This node dialled the connection.
  bool dialed_here = false;
};

/// A node that a peer told about (gossip); nothing was verified, nobody was dialled.
struct known_node {
  node_id id;
  std::string name;
  address listens_at;
};

/// Counters and gauges of one peer, for `troupe status` and the metrics.
struct peer_stats {
  peer_facts peer;
  std::uint64_t messages_sent = 0;
  std::uint64_t messages_received = 0;
  std::uint64_t bytes_sent = 0;
  std::uint64_t bytes_received = 0;
  /// Frames that carried more than one message.
  std::uint64_t batches_sent = 0;
  /// Accepted by send() and not gone yet.
  std::uint64_t queued_bytes = 0;
  /// What the peer still lets this node send.
  std::uint64_t credit_bytes = 0;
  std::uint32_t reorder_frames = 0;
  std::uint32_t reorder_frames_max = 0;
  /// The last round trip of a heartbeat, the peer's own delay taken out; 0 before the first.
  duration round_trip{};
  /// How bytes travel, e.g. "posix cma tcp"; empty where the transport has no choice.
  std::string lanes;
};

/// Identifies one call of dial() in its outcome.
enum class dial_id : std::uint64_t {};

/// What a transport tells its user. Everything is called on the progress thread, or on one that it
/// has call for it while it copies: one call at a time, without a lock of the transport held. A
/// handler may call any function of the transport but stop(). One that computes or blocks holds up
/// all peers.
class handler {
public:
  virtual ~handler() = default;

  /// A connection is ready for messages.
  virtual void peer_up(const peer_facts& peer) = 0;
  /// The end of a connection, once for each peer_up, after its last message. All that was accepted
  /// for the peer and had not left is lost, except after a drain.
  /// @param why draining: agreed on; timed_out: no sign of life; peer_down: the link broke;
  ///            corrupt_data: the peer broke the protocol; cancelled: close() here
  virtual void peer_down(const peer_facts& peer, const error& why) = 0;
  /// One message. `header` lives during the call; keep `payload` as long as you like.
  virtual void message(const node_id& from, std::span<const std::byte> header,
                       shared_bytes payload) = 0;
  /// The queue of a peer that had said busy is down to half its bound.
  virtual void drained(const node_id& to) = 0;
  /// The outcome of dial(), once for each call: the node that answered, after its peer_up. A dial
  /// that finds a node which is connected already succeeds with that node.
  /// @errors not_found: the name does not resolve; peer_down: nobody listens; timed_out;
  ///         and all of refused()
  virtual void dialed(dial_id dial, const address& where, const result<node_id>& outcome) = 0;
  /// A hello was refused, by this node or by the other one; says so at both ends.
  /// @param who what is known of the other end; id and name may be empty
  /// @param why unsupported: protocol version; conflict: type table, config (names the parts), node
  ///            id or name in use; unauthorized: secret; peer_down: fenced; draining;
  ///            limit_exceeded
  virtual void refused(const peer_facts& who, const error& why) = 0;
  /// A peer names nodes that it knows.
  virtual void heard_of(const known_node& other) = 0;
};

/// Whether a message may be turned away.
enum class pressure : std::uint8_t {
  /// Busy when the queue of the peer is full: the sender waits for drained() or gives up.
  refuse,
  /// Always queued. For what must not be lost and is bounded elsewhere, such as answers and downs.
  insist,
};

/// One node's place in the network. Calls are thread-safe unless a transport says otherwise.
class transport {
public:
  virtual ~transport() = default;

  [[nodiscard]] virtual const identity& self() const noexcept = 0;

  /// Starts to accept peers. At most one call succeeds.
  /// @return where it listens; port 0 in `where` is replaced by the one that was given
  /// @errors unauthorized: without a secret only loopback is allowed; io_failure: port taken, bad
  /// host;
  ///         conflict: listens already
  [[nodiscard]] virtual result<address> listen(const address& where) = 0;

  /// Starts a connection; dialed() tells how it ended. Never blocks.
  [[nodiscard]] virtual dial_id dial(const address& where) = 0;

  /// Sends one message, copying `header` and sharing `payload`. Any thread; may send in the
  /// caller's thread, never blocks and never calls the handler.
  /// @return bytes queued for the peer, this message included
  /// @errors peer_down: not connected; draining; busy: not taken, drained() will follow;
  ///         limit_exceeded: header or payload too large
  [[nodiscard]] virtual result<std::uint64_t> send(const node_id& to,
                                                   std::span<const std::byte> header,
                                                   shared_bytes payload, pressure how) = 0;
  [[nodiscard]] result<std::uint64_t> send(const node_id& to, std::span<const std::byte> header,
                                           shared_bytes payload = {}) {
    return send(to, header, std::move(payload), pressure::refuse);
  }

  /// Ends a connection once both sides' accepted messages are delivered: peer_down(draining) on
  /// both.
  virtual void drain(const node_id& peer) = 0;
  /// Ends a connection at once and fences the peer: peer_down(cancelled) here, peer_down there.
  virtual void close(const node_id& peer) = 0;
  /// Takes the fence of a peer away: it may return as it is, once it has forgiven this node too.
  /// For nodes that keep nothing of each other beyond a connection.
  virtual void forgive(const node_id& peer) = 0;

  /// Runs `job` on the progress thread, in the order of the calls. Never inline. Jobs that are left
  /// when the transport stops are run by stop().
  virtual void post(std::function<void()> job) = 0;

  /// A row for each connected peer.
  [[nodiscard]] virtual std::vector<peer_stats> stats() const = 0;

  /// Drains all peers within the drain timeout and ends. No call of the handler follows. Blocks;
  /// not on the progress thread. The destructor stops too.
  virtual void stop() = 0;
};

} // namespace troupe::net
