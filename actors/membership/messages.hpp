#pragma once

/// What the memberships of a cluster's processes tell each other, and what they hear from the node
/// and the wire of their own process.

#include "actors/protocol.hpp"
#include "troupe/transport/caf.hpp"

namespace troupe::actors {

/// What a process says of itself to all others, on every change and every half second.
struct node_card {
  std::string name;
  std::string address;
  /// "up", "draining" or "drained".
  std::string state;
  /// Drawn anew at every start of the process.
  std::uint64_t incarnation = 0;
  std::uint64_t uptime_s = 0;
  /// The sender's wall clock, Unix time.
  std::int64_t clock_ms = 0;
  /// Of a front process; 0 and no handle elsewhere.
  hub_id hub{};
  router_core router;
  /// Takes typed messages about what this process should run.
  node_core node;
  std::vector<replica_report> replicas;
};
TROUPE_INSPECT(node_card, name, address, state, incarnation, uptime_s, clock_ms, hub, router, node,
               replicas)

using wire_event_ptr = std::shared_ptr<const net::wire_event>;

} // namespace troupe::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::actors::wire_event_ptr)
CAF_ADD_ATOM(troupe_member, troupe::actors, dial_atom, "dial")
CAF_ADD_ATOM(troupe_member, troupe::actors, dialed_atom, "dialed")
CAF_ADD_ATOM(troupe_member, troupe::actors, own_atom, "own")

namespace troupe::actors {

/// What a membership offers to others: cards, and orders for its node.
using member_peer =
    caf::typed_actor<TROUPE_TAKES(node_card), TROUPE_TAKES(drain_atom, drain_order)>;

/// What it takes inside its process: the node that it serves, the card to show, what happens on the
/// wire, the handle of a peer by its name, and how a dial ended (an empty text: well).
using member_actor =
    member_peer::extend<TROUPE_TAKES(attach_atom, node_core), TROUPE_TAKES(own_atom, node_card),
                        TROUPE_TAKES(wire_event_ptr),
                        TROUPE_TAKES(attach_atom, std::string, member_peer),
                        TROUPE_TAKES(dialed_atom, std::string, std::uint16_t, caf::error),
                        TROUPE_TAKES(dial_atom), TROUPE_TAKES(tick_atom)>;

/// The name under which a process publishes its membership.
inline constexpr auto member_name = "troupe.member";

} // namespace troupe::actors

CAF_BEGIN_TYPE_ID_BLOCK(troupe_member, caf::first_custom_type_id + 1300)
CAF_ADD_TYPE_ID(troupe_member, (troupe::actors::node_card))
CAF_ADD_TYPE_ID(troupe_member, (troupe::actors::drain_order))
CAF_END_TYPE_ID_BLOCK(troupe_member)
