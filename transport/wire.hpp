#pragma once

#include "troupe/base/error.hpp"
#include "troupe/transport/shared_bytes.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

/// The frames of the protocol, as pure functions. A frame is a fixed header, at most `meta_bytes`
/// bytes that travel with it, and at most one contiguous payload.
namespace troupe::net {

/// Goes up with every change that an older node cannot read. The fixed header, the
/// token at the start of `hello` and the body of `refuse` stay as they are in all versions, so that
/// a node of another version can be told why.
inline constexpr std::uint8_t protocol_version = 1;

enum class opcode : std::uint8_t {
  /// Dialler -> listener: who I am, what I insist on, a challenge.
  hello = 1,
  /// Listener -> dialler: the same, and the answer to the challenge.
  hello_ack,
  /// Dialler -> listener: the answer to the listener's challenge.
  confirm,
  /// Listener -> dialler: you are in.
  welcome,
  /// Either way, the last frame of a hello that did not fit.
  refuse,
  /// One message of the user.
  message,
  /// Several small messages of the user.
  batch,
  /// I live; with clocks for the round trip. Not sequenced.
  heartbeat,
  /// Nothing but the credit of the fixed header. Not sequenced.
  credit,
  /// Nodes that I know.
  gossip,
  /// My last frame: everything before it was delivered.
  bye,
};

/// The fixed header of each frame: 40 bytes, little-endian, in this order after a magic byte.
struct frame_header {
  std::uint8_t version = protocol_version;
  opcode op = opcode::message;
  std::uint8_t flags = 0;
  /// Bytes behind the fixed header, beside the payload.
  std::uint32_t meta_bytes = 0;
  std::uint32_t payload_bytes = 0;
  /// Drawn by the receiver for this connection, 64 random bits: where the frame belongs, and the
  /// proof that its sender took part in the hello. 0 in a hello.
  std::uint64_t token = 0;
  /// Counts the sequenced frames of one direction from 0.
  std::uint64_t sequence = 0;
  /// The credit that the sender of this frame grants: bytes taken in so far, as frame_cost counts.
  std::uint64_t credit = 0;

  friend bool operator==(const frame_header&, const frame_header&) = default;
};

inline constexpr std::size_t frame_header_bytes = 40;
/// Room for the header of a message and what a batch adds.
inline constexpr std::size_t meta_bytes_max = 7168;
/// A frame of a hello carries no more than this, whoever sends it.
inline constexpr std::size_t hello_bytes_max = 65536;

/// True when frames of this kind are counted and put in order.
[[nodiscard]] constexpr bool is_sequenced(opcode op) noexcept {
  return op != opcode::heartbeat && op != opcode::credit && op != opcode::refuse;
}
/// What a message or batch takes from the credit; both ends count alike.
[[nodiscard]] constexpr std::uint64_t frame_cost(const frame_header& h) noexcept {
  return std::uint64_t{64} + h.meta_bytes + h.payload_bytes;
}

/// Writes the fixed header into the first 40 bytes of `out`. @pre out.size() >= 40
void encode_header(const frame_header& header, std::span<std::byte> out);
/// Reads the fixed header of a frame whose header part is `head` and whose payload has
/// `payload_bytes`. A header of another protocol version is good; the caller refuses it.
/// @errors corrupt_data: truncated, no frame of ours, an unknown opcode or flag of this version, or
///         lengths that differ from those found
[[nodiscard]] result<frame_header> decode_header(std::span<const std::byte> head,
                                                 std::size_t payload_bytes);

/// A frame on its way out. `head` (fixed header and meta) and the payload stay valid until the link
/// says that it is done with them.
struct outgoing_frame {
  frame_header header;
  /// frame_header_bytes bytes, then the meta bytes.
  std::vector<std::byte> head;
  shared_bytes payload;
  /// Bytes of the sender's queue that this frame frees when it has left.
  std::uint64_t queued_bytes = 0;
};

/// A frame that came in.
struct incoming_frame {
  frame_header header;
  shared_bytes meta;
  shared_bytes payload;
  /// False for a frame that was announced and whose payload is still on its way.
  bool arrived = false;
};

/// A user's message inside a batch.
struct batch_item {
  shared_bytes header;
  shared_bytes payload;
};

/// What an item adds to the size of a batch.
[[nodiscard]] constexpr std::size_t batch_item_bytes(std::size_t header, std::size_t payload) {
  return 8 + header + payload;
}
/// Appends one item to the body of a batch.
void append_batch_item(std::vector<std::byte>& out, std::span<const std::byte> header,
                       std::span<const std::byte> payload);
/// Splits the payload of a batch; the items share its owner.
/// @errors corrupt_data: an item runs over the end; `take` was called for those before it
[[nodiscard]] result<void> for_each_batch_item(const shared_bytes& batch,
                                               const std::function<void(batch_item)>& take);

} // namespace troupe::net
