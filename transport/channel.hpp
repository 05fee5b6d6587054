#pragma once

#include "transport/wire.hpp"

#include <cstdint>
#include <deque>
#include <map>
#include <vector>

namespace troupe::net {

/// What both ends agreed on for the frames of one connection.
struct channel_settings {
  /// What the peer put into its hello: belongs into every frame that goes there.
  std::uint64_t token_of_peer = 0;
  /// The credit that the peer grants to us, and we to it.
  std::uint64_t window_of_peer = 0;
  std::uint64_t window_here = 0;
  std::uint64_t payload_bytes_max = 0;
  std::uint32_t batch_bytes_max = 0;
  std::uint32_t reorder_frames_max = 0;
};

struct channel_stats {
  std::uint64_t messages_sent = 0;
  std::uint64_t messages_received = 0;
  std::uint64_t bytes_sent = 0;
  std::uint64_t bytes_received = 0;
  std::uint64_t batches_sent = 0;
  std::uint32_t reorder_frames_max = 0;
};

/// The flow of frames over one connection, both ways: numbers them and puts them back in order
/// (links keep none), packs small messages into batches, and counts credit. Pure.
///
/// Credit: a sender may have at most the window of the receiver under way, or one frame of any
/// size. Each frame says how much its sender has taken in so far; these sums only grow, so that
/// they may arrive in any order.
class channel {
public:
  /// Frames that a link works on at a time. More wait here, where they can be packed.
  static constexpr std::size_t frames_under_way_max = 64;

  explicit channel(const channel_settings& settings = {}) noexcept : settings_{settings} {}
  /// The window and token of the peer, once its hello has told them.
  void agree(std::uint64_t token_of_peer, std::uint64_t window_of_peer) noexcept;

  /// Takes a user's message (op message, head filled, sizes set) into the queue.
  void enqueue(outgoing_frame frame);
  /// Moves what credit and the link allow from the queue to `out`, packed, numbered and encoded.
  void pump(std::vector<outgoing_frame>& out);
  /// Makes a frame of the protocol itself, numbered and encoded.
  [[nodiscard]] outgoing_frame control(opcode op, std::vector<std::byte> body);
  /// The peer waits until all that it sent up to this sum is granted.
  void asked(std::uint64_t sent_by_peer) noexcept { asked_by_peer_ = sent_by_peer; }
  /// A batch turned out to hold so many messages.
  void count_batch(std::uint64_t messages) noexcept { stats_.messages_received += messages; }
  /// The link is done with one frame.
  void sent() noexcept;
  [[nodiscard]] std::size_t queued() const noexcept { return queue_.size(); }
  [[nodiscard]] bool queue_empty() const noexcept { return queue_.empty(); }
  /// All that waits fits into one frame that is not full: more may come to share it.
  [[nodiscard]] bool has_space() const noexcept;
  /// Nothing waits and the link works on nothing.
  [[nodiscard]] bool all_gone() const noexcept { return queue_.empty() && under_way_ == 0; }

  /// Whether a frame may come in, asked before its payload is: sizes, credit, order.
  /// @errors corrupt_data: the peer broke the protocol; the connection ends
  [[nodiscard]] result<void> admit(const frame_header& header);
  /// Takes an admitted frame and appends to `in_order` all frames whose turn it is now.
  void take(incoming_frame frame, std::vector<incoming_frame>& in_order);

  /// Grants all that was taken in, when the receiver has room; says so in the next frame.
  void grant() noexcept { granted_ = taken_; }
  /// So much was granted and not told that the peer may be waiting for it, or it said that it
  /// waits.
  [[nodiscard]] bool credit_due() const noexcept;

  [[nodiscard]] std::uint64_t credit_left() const noexcept;
  [[nodiscard]] std::uint32_t reorder_frames() const noexcept;
  [[nodiscard]] const channel_stats& stats() const noexcept { return stats_; }

private:
  [[nodiscard]] bool may_send(std::uint64_t cost) const noexcept;
  [[nodiscard]] bool packs(const outgoing_frame& frame) const noexcept;
  [[nodiscard]] outgoing_frame pack();
  outgoing_frame pop();
  void ask(std::vector<outgoing_frame>& out);
  void finish(outgoing_frame& frame);
  void count_received(const incoming_frame& frame) noexcept;

  channel_settings settings_;
  std::deque<outgoing_frame> queue_;
  /// What the queue would be as a batch.
  std::uint64_t queue_bytes_ = 0;
  std::size_t under_way_ = 0;
  std::uint64_t next_out_ = 0;
  /// Sums of frame_cost: sent, and told by the peer as taken in.
  std::uint64_t sent_ = 0;
  std::uint64_t credited_ = 0;
  /// The sum at which this side last asked for credit, and the peer's.
  std::uint64_t asked_ = 0;
  std::uint64_t asked_by_peer_ = 0;
  std::uint64_t next_in_ = 0;
  /// Sums of frame_cost: admitted, handed on, granted, told to the peer.
  std::uint64_t admitted_ = 0;
  std::uint64_t taken_ = 0;
  std::uint64_t granted_ = 0;
  std::uint64_t told_ = 0;
  /// The frame whose turn is next was admitted while it was next: it needs no place in `early_`.
  bool next_admitted_ = false;
  /// Frames that came too early, by sequence number. admit() enters a place, take() fills it.
  std::map<std::uint64_t, incoming_frame> early_;
  channel_stats stats_;
};

} // namespace troupe::net
