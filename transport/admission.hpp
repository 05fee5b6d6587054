#pragma once

#include "transport/wire.hpp"
#include "troupe/transport/transport.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>

namespace troupe::net {

/// What is queued for one peer: counted up by senders in any thread, down on the progress thread.
struct gauge {
  std::atomic<std::uint64_t> queued_bytes = 0;
  /// A sender was turned away and waits for drained().
  std::atomic<bool> pressed = false;
  std::uint64_t bytes_max = 0;

  [[nodiscard]] bool relaxed() const noexcept { return queued_bytes <= bytes_max / 2; }
};

/// A message that was counted in.
struct ticket {
  std::shared_ptr<gauge> queue;
  /// Bytes queued for the peer, this message included.
  std::uint64_t queued_bytes = 0;
};

/// Decides in the sender's thread whether a message is taken, before anything is locked or queued.
/// Thread-safe.
class admission {
public:
  explicit admission(const limits& bounds) noexcept : limits_{bounds} {}

  /// Opens the door for a peer that is up.
  [[nodiscard]] std::shared_ptr<gauge> open(const node_id& peer);
  /// Closes it: no message is admitted after the call; later ones hear `draining`.
  void start_drain(const node_id& peer);
  /// Forgets the peer; later messages hear `peer_down`.
  void forget(const node_id& peer);

  /// What a message adds to the queue of its peer.
  [[nodiscard]] static std::uint64_t bytes_of(std::size_t header, std::size_t payload) noexcept {
    return std::uint64_t{64} + header + payload;
  }
  /// Counts a message in. Whoever drops or transmits it counts it out.
  /// @errors as transport::send
  [[nodiscard]] result<ticket> admit(const node_id& peer, std::size_t header_bytes,
                                     std::size_t payload_bytes, pressure how);

private:
  struct door {
    std::shared_ptr<gauge> queue;
    bool draining = false;
  };

  [[nodiscard]] result<std::shared_ptr<gauge>> find(const node_id& peer) const;

  limits limits_;
  mutable std::mutex mutex_;
  std::unordered_map<node_id, door> doors_;
};

/// Without a secret, only this machine may reach a node. @errors unauthorized
[[nodiscard]] result<void> may_listen(const identity& self, const address& where);

/// A user's message as a frame: `header` copied behind room for the fixed header, `payload` shared.
/// @pre admitted, so its sizes are in bounds
[[nodiscard]] outgoing_frame make_message(std::span<const std::byte> header, shared_bytes payload);

} // namespace troupe::net
