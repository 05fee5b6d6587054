#pragma once

#include "transport/link.hpp"

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <variant>
#include <vector>

namespace troupe::net {

struct peer_up_event {
  peer_facts peer;
};
struct peer_down_event {
  peer_facts peer;
  error why;
};
struct message_event {
  node_id from;
  shared_bytes header;
  shared_bytes payload;
};
struct drained_event {
  node_id to;
};
struct dialed_event {
  dial_id dial{};
  address where;
  result<node_id> outcome;
};
struct refused_event {
  peer_facts who;
  error why;
};
struct heard_event {
  known_node other;
};
using event = std::variant<message_event, peer_up_event, peer_down_event, drained_event,
                           dialed_event, refused_event, heard_event>;

/// Calls the function of `to` that the event stands for.
void deliver(const event& what, handler& to);

/// All connections of one node: who is connected, who is fenced, which of two simultaneous
/// connections stays, and what the user is told. A pure state machine like its connections.
///
/// Of two nodes the one with the smaller id decides which connection stays: it keeps the one that
/// it dialled itself when it can tell that there are two, and else the first that it can commit.
/// The other node goes along, so that both keep the same one.
class mesh {
public:
  /// @param driver,door outlive the mesh
  mesh(connection_settings settings, link_driver& driver, admission& door);
  mesh(const mesh&) = delete;
  mesh& operator=(const mesh&) = delete;

  /// What the hello says from now on.
  void listens_at(const address& where) { settings_.listens_at = where; }

  // What the user wants.
  void dial(dial_id dial, const address& where, time_point now);
  /// Takes a message that was admitted; flush() sends it. Dropped when the peer is gone.
  void enqueue(const node_id& to, const ticket& admitted, outgoing_frame frame);
  /// Sends what was enqueued; small messages that come close upon each other wait for company.
  void flush(time_point now);
  /// Messages wait for company: flush() again soon.
  [[nodiscard]] bool is_gathering() const noexcept { return !touched_.empty(); }
  void drain(const node_id& peer, time_point now);
  void close(const node_id& peer, time_point now);
  /// See transport::forgive.
  void forgive(const node_id& peer);
  /// Drains everybody and lets nobody in.
  void drain_all(time_point now);
  /// Ends what is left.
  void close_all(time_point now);

  // What the driver notices.
  /// Somebody dialled. @return nothing when there are too many connections: close the link
  [[nodiscard]] std::optional<link_id> accept(time_point now);
  /// Where a frame belongs, asked before its payload is received.
  /// @param from the link, where the driver knows it; needed for a hello alone
  /// @return nothing when the frame is to be dropped
  [[nodiscard]] std::optional<link_id> admit(const frame_header& header,
                                             std::optional<link_id> from, time_point now);
  /// Counts the buffers of a connection while they have owners; null when it is gone.
  [[nodiscard]] std::shared_ptr<held_meter> meter_of(link_id link) const;
  void frame_arrived(link_id link, incoming_frame frame, time_point now);
  /// The link is done with a frame that was pending.
  void frame_sent(link_id link, std::uint64_t queued_bytes, time_point now);
  void link_down(link_id link, const error& why, time_point now);
  /// Looks at all clocks. @return when to look again, at the latest
  time_point tick(time_point now);

  /// When tick() is due; dialling and coming up bring it forward.
  [[nodiscard]] time_point due() const noexcept { return promised_; }
  /// What happened since the last call, in order. Swapped with `out`, which is emptied first.
  void take_events(std::vector<event>& out);
  [[nodiscard]] bool has_events() const noexcept { return !events_.empty(); }
  [[nodiscard]] std::vector<peer_stats> stats() const;
  [[nodiscard]] std::size_t connections() const noexcept { return connections_.size(); }
  /// Frames for no connection of ours: late ones of peers that are gone, and forged ones.
  [[nodiscard]] std::uint64_t strays() const noexcept { return strays_; }
  [[nodiscard]] const connection_settings& settings() const noexcept { return settings_; }

private:
  struct dialling {
    dial_id dial{};
    address where;
  };
  struct entry {
    entry(link_id link, const connection_settings& settings, bool dialled, time_point now)
        : connection{link, settings, dialled, now} {}
    net::connection connection;
    std::vector<dialling> dials;
    bool touched = false;
    /// See link_driver::gathers.
    duration gathers{};
    /// Until then what is enqueued waits for company, if it does not fill a frame.
    time_point open_until{};
  };
  /// A dial that waits for another connection to the same node.
  struct waiting_dial {
    dialling what;
    node_id node;
    time_point deadline;
  };

  entry& add(bool dialled, time_point now);
  void apply(entry& of, connection_effects& effects, time_point now);
  void transmit(entry& of, connection_effects& effects);
  void decide(entry& of, connection_effects& effects, time_point now);
  [[nodiscard]] std::optional<refusal> objection(const entry& of) const;
  [[nodiscard]] bool is_duplicate(const entry& of) const;
  void came_up(entry& of, time_point now);
  void ended(entry& of, const connection_end& how, time_point now);
  void refused(entry& of, const connection_end& how, time_point now);
  void settle_dials(entry& of, const result<node_id>& outcome);
  void settle_waiting(time_point now);
  void introduce(entry& of);
  void hear(const known_node& other);
  void fence(const node_id& id);
  void relax(entry& of);
  void pump(entry& of, time_point now);

  connection_settings settings_;
  link_driver& driver_;
  admission& door_;
  std::map<link_id, std::unique_ptr<entry>> connections_;
  std::unordered_map<std::uint64_t, entry*> by_token_;
  std::unordered_map<node_id, entry*> peers_;
  std::unordered_set<node_id> fenced_;
  std::deque<node_id> fenced_in_order_;
  std::unordered_map<node_id, address> known_;
  std::vector<waiting_dial> waiting_;
  std::vector<entry*> touched_;
  std::vector<event> events_;
  connection_effects effects_;
  std::uint64_t next_link_ = 1;
  std::uint64_t strays_ = 0;
  bool closing_ = false;
  time_point promised_ = time_point::max();
};

} // namespace troupe::net
