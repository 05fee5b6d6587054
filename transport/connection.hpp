#pragma once

#include "transport/admission.hpp"
#include "transport/channel.hpp"
#include "transport/hello.hpp"
#include "troupe/transport/buffer_pool.hpp"

#include <memory>
#include <optional>
#include <vector>

namespace troupe::net {

/// One link of the network below: what UCX calls an endpoint. Never used again.
enum class link_id : std::uint64_t {};

/// dialing: our hello is under way; hello: the hellos are being judged; ready: messages flow;
/// draining: what was accepted still flows; closed: over.
enum class connection_state : std::uint8_t { dialing, hello, ready, draining, closed };

/// What every connection of a node shares. Outlives them.
struct connection_settings {
  node_options options;
  process_identity where;
  entropy random;
  /// Told in the hello; set by listen().
  address listens_at;
  /// Called by the last owner of received buffers when a peer may get credit again: in any thread,
  /// perhaps after everything else is gone.
  std::function<void()> on_room;
};

/// How a link is closed: drop what it still carries; let that leave first; or wait, within a
/// deadline, until the peer has closed its end, because the peer may notice that the link has ended
/// before it sees the last frame.
enum class parting : std::uint8_t { drop, flush, heard };

/// How a connection ended.
struct connection_end {
  error why;
  /// Both sides agreed, and nothing is lost.
  bool clean = false;
  net::parting parting = net::parting::drop;
  /// The hello did not fit, and who says so.
  std::optional<refusal> refused = {};
};

/// What one input to a connection brought about, in this order.
struct connection_effects {
  std::vector<outgoing_frame> send;
  /// Became ready. Messages below came after it.
  bool ready = false;
  /// Messages for the user: op message, with meta and payload.
  std::vector<incoming_frame> deliver;
  std::vector<known_node> heard;
  /// The peer's hello (or its proof) is good: approve() or refuse() must follow.
  bool asks = false;
  /// The peer started a drain.
  bool drains = false;
  std::optional<connection_end> end;
};

/// One connection from the first hello to the last bye: a pure state machine. Events go in with the
/// time, effects come out; it knows no link, no thread and no clock.
///
///   dialler   dialing --hello_ack good, approved: confirm--> hello --welcome--> ready
///   listener  hello --hello good, approved: hello_ack--> hello --confirm good, approved:
///   welcome--> ready both      ready --drain() or bye--> draining --both byes seen--> closed any
///   --timeout, link down, protocol broken, refused--> closed
class connection {
public:
  /// @param settings outlives the connection
  connection(link_id link, const connection_settings& settings, bool dialled, time_point now);

  /// Starts to talk; for the dialler, once the link exists.
  void begin(connection_effects& out);
  /// Whether a frame may come in, asked before its payload is received.
  /// @errors corrupt_data: the caller ends the connection with it
  [[nodiscard]] result<void> admit(const frame_header& header, time_point now);
  /// Takes an admitted frame.
  void receive(incoming_frame frame, time_point now, connection_effects& out);
  /// The answers to `asks`. What is to be approved is the peer itself in a hello, and the start of
  /// the connection in a confirm or hello_ack.
  void approve(time_point now, connection_effects& out);
  void refuse(refusal why, connection_effects& out);
  /// The door through which messages come; set when ready.
  void use(std::shared_ptr<gauge> queue) noexcept { queue_ = std::move(queue); }

  [[nodiscard]] const std::shared_ptr<gauge>& queue() const noexcept { return queue_; }

  /// Takes a message that was admitted. @pre ready or draining
  void enqueue(outgoing_frame frame);
  /// Sends what may be sent.
  void pump(connection_effects& out);
  [[nodiscard]] std::size_t queued() const noexcept { return channel_.queued(); }
  /// Small messages wait that others may join.
  [[nodiscard]] bool has_space() const noexcept {
    return state_ == connection_state::ready && channel_.has_space();
  }
  /// Something waits that pump() could send now.
  [[nodiscard]] bool wants_pump() const noexcept;
  /// The link is done with one of the frames.
  void sent(std::uint64_t queued_bytes) noexcept;
  /// Tells the peer about nodes. @pre ready
  void gossip(std::span<const known_node> nodes, connection_effects& out);

  /// Starts a drain; nothing more is admitted.
  void drain(time_point now, connection_effects& out);
  /// The link is gone.
  void link_down(const error& why, connection_effects& out);
  /// Looks at the clocks. @return when to look again
  time_point tick(time_point now, connection_effects& out);
  /// This process stood still: silence of that length is not the peer's fault.
  void forgive(duration stall) noexcept;
  /// Ends without a word.
  void end(connection_end how, connection_effects& out);

  [[nodiscard]] link_id link() const noexcept { return link_; }
  [[nodiscard]] connection_state state() const noexcept { return state_; }
  [[nodiscard]] bool dialled() const noexcept { return dialled_; }
  /// The peer's hello has come and is well formed.
  [[nodiscard]] bool knows_peer() const noexcept { return theirs_.token != 0; }
  [[nodiscard]] const hello& peer() const noexcept { return theirs_; }
  /// The dialler has confirmed, or the connection is ready: the end that decides has chosen it.
  [[nodiscard]] bool committed() const noexcept { return committed_; }
  [[nodiscard]] std::uint64_t token() const noexcept { return mine_.token; }
  [[nodiscard]] const std::shared_ptr<held_meter>& meter() const noexcept { return meter_; }
  [[nodiscard]] peer_facts facts() const;
  [[nodiscard]] peer_stats stats() const;

private:
  enum class step : std::uint8_t { hello, ack, confirm, welcome, done };

  void on_hello(const incoming_frame& frame, connection_effects& out);
  void on_hello_ack(const incoming_frame& frame, connection_effects& out);
  void on_confirm(const incoming_frame& frame, connection_effects& out);
  void on_refuse(const incoming_frame& frame, connection_effects& out);
  void on_batch(const incoming_frame& frame, connection_effects& out);
  void on_heartbeat(const incoming_frame& frame, time_point now);
  void on_credit(const incoming_frame& frame, connection_effects& out);
  void on_gossip(const incoming_frame& frame, connection_effects& out);
  void on_bye(const incoming_frame& frame, time_point now, connection_effects& out);
  void dispatch(incoming_frame frame, time_point now, connection_effects& out);
  void become_ready(time_point now, connection_effects& out);
  void start_draining(time_point now);
  void grant(connection_effects& out);
  void say_bye(connection_effects& out);
  void beat(time_point now, connection_effects& out);
  void break_off(error why, connection_effects& out);
  [[nodiscard]] refusal secret_misfit() const;
  [[nodiscard]] bool accepts(opcode op) const noexcept;

  link_id link_;
  const connection_settings& settings_;
  bool dialled_;
  connection_state state_;
  /// The frame of the hello that is awaited.
  step awaits_;
  bool committed_ = false;
  hello mine_;
  hello theirs_;
  std::vector<std::byte> dialler_hello_;
  std::vector<std::byte> listener_hello_;
  channel channel_;
  std::shared_ptr<gauge> queue_;
  std::shared_ptr<held_meter> meter_ = std::make_shared<held_meter>();
  bool bye_sent_ = false;
  bool bye_seen_ = false;
  /// We told the peer that its bye was seen: it may close, and so may we.
  bool bye_answered_ = false;
  time_point deadline_;
  time_point last_heard_;
  time_point last_beat_{};
  duration round_trip_{};
  /// The clock in the peer's last heartbeat, and when it came.
  std::uint64_t peer_clock_ = 0;
  time_point peer_clock_came_{};
  std::vector<incoming_frame> in_order_;
};

} // namespace troupe::net
