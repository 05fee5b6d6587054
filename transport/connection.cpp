#include "transport/connection.hpp"

#include "transport/byte_io.hpp"
#include "troupe/base/check.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace troupe::net {

namespace {

/// How long the side that needs nothing more waits for the other one to close.
constexpr auto linger = std::chrono::seconds{1};

channel_settings channel_of(const connection_settings& settings) {
  const auto& bounds = settings.options.limits;
  return {.window_here = bounds.window_bytes,
          .payload_bytes_max = std::max<std::uint64_t>(bounds.payload_bytes_max, hello_bytes_max),
          .batch_bytes_max = bounds.batch_bytes_max,
          .reorder_frames_max = bounds.reorder_frames_max};
}

std::uint64_t nanoseconds(duration d) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(d).count());
}

} // namespace

connection::connection(link_id link, const connection_settings& settings, bool dialled,
                       time_point now)
    : link_{link}, settings_{settings}, dialled_{dialled}, state_{dialled
                                                                      ? connection_state::dialing
                                                                      : connection_state::hello},
      awaits_{dialled ? step::ack : step::hello}, mine_{hello_of(settings.options.self)},
      channel_{channel_of(settings)}, deadline_{now + settings.options.timing.dial_timeout},
      last_heard_{now} {
  mine_.token = draw_word(settings.random);
  mine_.listens_at = settings.listens_at;
  mine_.window_bytes = settings.options.limits.window_bytes;
  mine_.where = settings.where;
  settings.random(mine_.challenge);
  meter_->bytes_max = settings.options.limits.held_bytes_max;
  meter_->back_in_bounds = settings.on_room;
}

void connection::begin(connection_effects& out) {
  TROUPE_CHECK(dialled_ && dialler_hello_.empty(), "only the dialler begins, once");
  dialler_hello_ = encode(mine_);
  out.send.push_back(channel_.control(opcode::hello, dialler_hello_));
}

bool connection::accepts(opcode op) const noexcept {
  switch (op) {
  case opcode::hello:
    return awaits_ == step::hello;
  case opcode::hello_ack:
    return awaits_ == step::ack;
  case opcode::confirm:
    return awaits_ == step::confirm;
  case opcode::welcome:
    return awaits_ == step::welcome;
  case opcode::refuse:
    return awaits_ != step::done;
  default:
    // The listener is ready before its welcome has reached the dialler, and may overtake it.
    return awaits_ == step::done || awaits_ == step::welcome;
  }
}

result<void> connection::admit(const frame_header& header, time_point now) {
  if (state_ == connection_state::closed)
    return fail(errc::corrupt_data, "a frame for a closed connection");
  const bool judged = header.op == opcode::hello || header.op == opcode::refuse;
  if (header.version != protocol_version && !judged)
    return fail(errc::corrupt_data, "a frame of another protocol version");
  if (!accepts(header.op))
    return fail(errc::corrupt_data,
                fmt::format("a frame of kind {} out of turn", static_cast<int>(header.op)));
  const bool user = header.op == opcode::message || header.op == opcode::batch;
  if (!user && header.payload_bytes > hello_bytes_max)
    return fail(errc::corrupt_data,
                fmt::format("{} bytes in a frame of the protocol's own", header.payload_bytes));
  if (auto in = channel_.admit(header); !in)
    return in;
  last_heard_ = std::max(last_heard_, now);
  return {};
}

void connection::receive(incoming_frame frame, time_point now, connection_effects& out) {
  if (state_ == connection_state::closed)
    return;
  in_order_.clear();
  channel_.take(std::move(frame), in_order_);
  for (auto& next : in_order_) {
    if (state_ == connection_state::closed)
      break;
    dispatch(std::move(next), now, out);
  }
  if (state_ != connection_state::ready && state_ != connection_state::draining)
    return;
  pump(out);
}

void connection::dispatch(incoming_frame frame, time_point now, connection_effects& out) {
  switch (frame.header.op) {
  case opcode::hello:
    return on_hello(frame, out);
  case opcode::hello_ack:
    return on_hello_ack(frame, out);
  case opcode::confirm:
    return on_confirm(frame, out);
  case opcode::welcome:
    return become_ready(now, out);
  case opcode::refuse:
    return on_refuse(frame, out);
  case opcode::message:
    out.deliver.push_back(std::move(frame));
    return;
  case opcode::batch:
    return on_batch(frame, out);
  case opcode::heartbeat:
    return on_heartbeat(frame, now);
  case opcode::credit:
    return on_credit(frame, out);
  case opcode::gossip:
    return on_gossip(frame, out);
  case opcode::bye:
    return on_bye(frame, now, out);
  }
}

void connection::on_batch(const incoming_frame& frame, connection_effects& out) {
  std::uint64_t count = 0;
  const auto done = for_each_batch_item(frame.payload, [&](batch_item item) {
    ++count;
    out.deliver.push_back({frame.header, std::move(item.header), std::move(item.payload)});
  });
  channel_.count_batch(count);
  if (!done)
    break_off(done.error(), out);
}

void connection::on_heartbeat(const incoming_frame& frame, time_point now) {
  byte_reader r{frame.payload.view()};
  const auto clock = r.number<std::uint64_t>();
  const auto echo = r.number<std::uint64_t>();
  const auto hold = r.number<std::uint64_t>();
  if (!r.complete())
    return;
  peer_clock_ = clock;
  peer_clock_came_ = now;
  const auto here = nanoseconds(now.time_since_epoch());
  if (echo != 0 && here >= echo && here - echo >= hold)
    round_trip_ = std::chrono::nanoseconds{here - echo - hold};
}

void connection::on_credit(const incoming_frame& frame, connection_effects& out) {
  byte_reader r{frame.payload.view()};
  if (r.left() == 0)
    return;
  const auto wanted = r.number<std::uint64_t>();
  if (!r.complete())
    return break_off({errc::corrupt_data, "a malformed question for credit"}, out);
  channel_.asked(wanted);
}

void connection::on_gossip(const incoming_frame& frame, connection_effects& out) {
  auto nodes = decode_gossip(frame.payload.view());
  if (!nodes)
    return break_off(nodes.error(), out);
  out.heard.insert(out.heard.end(), nodes->begin(), nodes->end());
}

void connection::become_ready(time_point now, connection_effects& out) {
  state_ = connection_state::ready;
  awaits_ = step::done;
  committed_ = true;
  last_heard_ = std::max(last_heard_, now);
  out.ready = true;
}

void connection::enqueue(outgoing_frame frame) {
  TROUPE_CHECK(state_ == connection_state::ready || state_ == connection_state::draining,
               "a message for a connection that is not ready");
  channel_.enqueue(std::move(frame));
}

void connection::grant(connection_effects& out) {
  if (meter_->bytes <= meter_->bytes_max)
    channel_.grant();
  if (channel_.credit_due())
    out.send.push_back(channel_.control(opcode::credit, {}));
}

void connection::pump(connection_effects& out) {
  grant(out);
  channel_.pump(out.send);
  if (state_ == connection_state::draining)
    say_bye(out);
}

bool connection::wants_pump() const noexcept {
  return state_ == connection_state::draining ||
         (state_ == connection_state::ready && !channel_.queue_empty());
}

void connection::sent(std::uint64_t queued_bytes) noexcept {
  channel_.sent();
  if (queue_ != nullptr)
    queue_->queued_bytes -= queued_bytes;
}

void connection::gossip(std::span<const known_node> nodes, connection_effects& out) {
  if (!nodes.empty() && !bye_sent_)
    out.send.push_back(channel_.control(opcode::gossip, encode(nodes)));
}

void connection::start_draining(time_point now) {
  state_ = connection_state::draining;
  deadline_ = now + settings_.options.timing.drain_timeout;
}

void connection::drain(time_point now, connection_effects& out) {
  if (state_ != connection_state::ready)
    return;
  start_draining(now);
  pump(out);
}

/// A bye is sent when all that was accepted has left, and once more, with the answer, when the bye
/// of the other side comes later. Who hears that its bye was seen closes the link.
void connection::say_bye(connection_effects& out) {
  const bool gone = channel_.all_gone() && (queue_ == nullptr || queue_->queued_bytes == 0);
  const bool answers = bye_seen_ && !bye_answered_;
  if (bye_sent_ ? !answers : !gone)
    return;
  bye_sent_ = true;
  bye_answered_ = bye_seen_;
  out.send.push_back(channel_.control(opcode::bye, {std::byte{bye_seen_}}));
}

void connection::on_bye(const incoming_frame& frame, time_point now, connection_effects& out) {
  if (frame.payload.size() != 1)
    return break_off({errc::corrupt_data, "a malformed bye"}, out);
  bye_seen_ = true;
  if (frame.payload.data()[0] == std::byte{1})
    return end({.why = {errc::draining, "the connection was drained"},
                .clean = true,
                .parting = parting::flush},
               out);
  if (state_ == connection_state::ready) {
    out.drains = true;
    start_draining(now);
  }
}

void connection::link_down(const error& why, connection_effects& out) {
  if (bye_answered_)
    return end({.why = {errc::draining, "the connection was drained"}, .clean = true}, out);
  end({.why = why}, out);
}

void connection::beat(time_point now, connection_effects& out) {
  std::vector<std::byte> body;
  byte_writer w{body};
  w.number(nanoseconds(now.time_since_epoch()));
  w.number(peer_clock_);
  w.number(nanoseconds(now - peer_clock_came_));
  out.send.push_back(channel_.control(opcode::heartbeat, std::move(body)));
  last_beat_ = now;
}

time_point connection::tick(time_point now, connection_effects& out) {
  const auto& clocks = settings_.options.timing;
  const auto lost = [&](std::string note) {
    end({.why = {errc::timed_out, std::move(note)}}, out);
  };
  switch (state_) {
  case connection_state::closed:
    break;
  case connection_state::dialing:
  case connection_state::hello:
    if (now >= deadline_)
      lost("the hello did not complete in time");
    return deadline_;
  case connection_state::draining:
    if (now >= deadline_ || (bye_answered_ && now >= last_heard_ + linger)) {
      if (bye_answered_)
        link_down({}, out);
      else
        lost("the deadline of the drain has passed with messages left");
      break;
    }
    [[fallthrough]];
  case connection_state::ready: {
    if (now >= last_heard_ + clocks.dead_after) {
      const auto silence = std::chrono::duration_cast<std::chrono::milliseconds>(now - last_heard_);
      lost(fmt::format("no sign of life for {} ms", silence.count()));
      break;
    }
    if (now >= last_beat_ + clocks.heartbeat)
      beat(now, out);
    pump(out);
    const auto next = std::min(last_beat_ + clocks.heartbeat, last_heard_ + clocks.dead_after);
    return state_ == connection_state::draining ? std::min(next, deadline_) : next;
  }
  }
  return time_point::max();
}

void connection::forgive(duration stall) noexcept {
  last_heard_ += stall;
  deadline_ += stall;
}

void connection::break_off(error why, connection_effects& out) {
  end({.why = std::move(why)}, out);
}

void connection::end(connection_end how, connection_effects& out) {
  if (state_ == connection_state::closed)
    return;
  state_ = connection_state::closed;
  out.end = std::move(how);
}

peer_facts connection::facts() const {
  return {theirs_.id, theirs_.name, theirs_.listens_at, dialled_};
}

peer_stats connection::stats() const {
  const auto& counted = channel_.stats();
  return {.peer = facts(),
          .messages_sent = counted.messages_sent,
          .messages_received = counted.messages_received,
          .bytes_sent = counted.bytes_sent,
          .bytes_received = counted.bytes_received,
          .batches_sent = counted.batches_sent,
          .queued_bytes = queue_ == nullptr ? 0 : queue_->queued_bytes.load(),
          .credit_bytes = channel_.credit_left(),
          .reorder_frames = channel_.reorder_frames(),
          .reorder_frames_max = counted.reorder_frames_max,
          .round_trip = round_trip_,
          .lanes = {}};
}

} // namespace troupe::net
