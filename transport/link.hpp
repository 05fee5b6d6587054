#pragma once

#include "transport/connection.hpp"

#include <string>

namespace troupe::net {

/// What a link did with a frame.
enum class sending : std::uint8_t {
  /// It is done with it.
  done,
  /// mesh::frame_sent() will say when.
  pending,
};

/// The network below a mesh: links between nodes that carry whole frames, in any order, and notice
/// when they break. Calls come from inside calls of the mesh; what a link notices is told to the
/// mesh later, never from inside these.
class link_driver {
public:
  virtual ~link_driver() = default;

  /// Starts a link to a node that listens. The first frame may follow at once.
  virtual void open(link_id link, const address& where) = 0;
  /// Takes one frame. What is left of it when the link breaks is dropped.
  virtual sending transmit(link_id link, outgoing_frame frame) = 0;
  /// Ends a link; the mesh hears no more of it.
  virtual void close(link_id link, parting how) = 0;
  /// The link is about to be closed without the consent of its node, which may live on and read
  /// from shared memory what was sent to it.
  virtual void suspect(link_id link, const process_identity& peer) = 0;
  /// The hello on the link is done: messages will flow.
  virtual void came_up(link_id /*link*/, const process_identity& /*peer*/) {}
  /// How long small messages may wait for company once a frame has left, because a frame costs more
  /// than what is in it; asked when the hello is done.
  [[nodiscard]] virtual duration gathers(link_id /*link*/) const { return {}; }
  /// How bytes travel on the link.
  [[nodiscard]] virtual std::string lanes(link_id link) const = 0;
};

} // namespace troupe::net
