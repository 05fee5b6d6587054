#include "transport/channel.hpp"

#include "transport/byte_io.hpp"
#include "troupe/base/check.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace troupe::net {

namespace {

constexpr bool costs(opcode op) noexcept { return op == opcode::message || op == opcode::batch; }

std::uint64_t cost_of(const outgoing_frame& frame) noexcept { return frame_cost(frame.header); }

} // namespace

void channel::agree(std::uint64_t token_of_peer, std::uint64_t window_of_peer) noexcept {
  settings_.token_of_peer = token_of_peer;
  settings_.window_of_peer = window_of_peer;
}

void channel::enqueue(outgoing_frame frame) {
  TROUPE_CHECK(frame.head.size() == frame_header_bytes + frame.header.meta_bytes &&
                   frame.payload.size() == frame.header.payload_bytes,
               "a message whose sizes are not those of its header");
  queue_bytes_ += batch_item_bytes(frame.header.meta_bytes, frame.header.payload_bytes);
  queue_.push_back(std::move(frame));
}

outgoing_frame channel::pop() {
  auto out = std::move(queue_.front());
  queue_.pop_front();
  queue_bytes_ -= batch_item_bytes(out.header.meta_bytes, out.header.payload_bytes);
  return out;
}

bool channel::has_space() const noexcept {
  return queue_bytes_ < settings_.batch_bytes_max / 4 * 3;
}

bool channel::may_send(std::uint64_t cost) const noexcept {
  const auto open = sent_ - credited_;
  return open == 0 || (open <= settings_.window_of_peer && cost <= settings_.window_of_peer - open);
}

bool channel::packs(const outgoing_frame& frame) const noexcept {
  const auto size = batch_item_bytes(frame.header.meta_bytes, frame.header.payload_bytes);
  return size <= settings_.batch_bytes_max / 4;
}

/// Takes two or more small messages from the queue into one frame.
outgoing_frame channel::pack() {
  outgoing_frame out;
  std::vector<std::byte> body;
  body.reserve(settings_.batch_bytes_max);
  while (!queue_.empty() && packs(queue_.front())) {
    const auto& first = queue_.front().header;
    if (body.size() + batch_item_bytes(first.meta_bytes, first.payload_bytes) >
        settings_.batch_bytes_max)
      break;
    const auto next = pop();
    const auto header = std::span{next.head}.subspan(frame_header_bytes);
    append_batch_item(body, header, next.payload.view());
    out.queued_bytes += next.queued_bytes;
    ++stats_.messages_sent;
    stats_.bytes_sent += header.size() + next.payload.size();
  }
  ++stats_.batches_sent;
  out.header.op = opcode::batch;
  out.header.payload_bytes = static_cast<std::uint32_t>(body.size());
  out.head.resize(frame_header_bytes);
  out.payload = shared_bytes::adopt(std::move(body));
  return out;
}

void channel::finish(outgoing_frame& frame) {
  frame.header.token = settings_.token_of_peer;
  frame.header.sequence = is_sequenced(frame.header.op) ? next_out_++ : 0;
  frame.header.credit = granted_;
  told_ = granted_;
  encode_header(frame.header, frame.head);
  ++under_way_;
}

/// Small sums of credit are not told at once; a sender that needs them says so, once.
void channel::ask(std::vector<outgoing_frame>& out) {
  if (std::exchange(asked_, sent_) == sent_)
    return;
  std::vector<std::byte> body;
  byte_writer{body}.number(sent_);
  out.push_back(control(opcode::credit, std::move(body)));
}

void channel::pump(std::vector<outgoing_frame>& out) {
  while (!queue_.empty() && under_way_ < frames_under_way_max) {
    // A batch costs no more than its parts, so room for its largest size is room for it.
    const bool batch = queue_.size() > 1 && packs(queue_[0]) && packs(queue_[1]);
    const auto cost =
        batch ? 64 + std::uint64_t{settings_.batch_bytes_max} : cost_of(queue_.front());
    if (!may_send(cost)) {
      ask(out);
      return;
    }
    outgoing_frame frame;
    if (batch) {
      frame = pack();
    } else {
      frame = pop();
      ++stats_.messages_sent;
      stats_.bytes_sent += frame.header.meta_bytes + frame.header.payload_bytes;
    }
    sent_ += cost_of(frame);
    finish(frame);
    out.push_back(std::move(frame));
  }
}

outgoing_frame channel::control(opcode op, std::vector<std::byte> body) {
  TROUPE_CHECK(body.size() <= hello_bytes_max, "{} bytes of the protocol's own", body.size());
  outgoing_frame frame;
  frame.header.op = op;
  frame.header.payload_bytes = static_cast<std::uint32_t>(body.size());
  frame.head.resize(frame_header_bytes);
  frame.payload = shared_bytes::adopt(std::move(body));
  finish(frame);
  return frame;
}

void channel::sent() noexcept {
  TROUPE_CHECK(under_way_ > 0, "a link is done with a frame that it never got");
  --under_way_;
}

result<void> channel::admit(const frame_header& header) {
  const auto broken = [](std::string note) { return fail(errc::corrupt_data, std::move(note)); };
  if (header.payload_bytes > settings_.payload_bytes_max)
    return broken(fmt::format("the peer sends a payload of {} bytes, above the bound of {}",
                              header.payload_bytes, settings_.payload_bytes_max));
  if (header.credit > sent_)
    return broken("the peer grants credit for bytes that nobody sent");
  credited_ = std::max(credited_, header.credit);
  if (!is_sequenced(header.op))
    return {};
  const bool next = header.sequence == next_in_;
  if (header.sequence < next_in_ || (next && next_admitted_) || early_.contains(header.sequence))
    return broken(fmt::format("frame {} came twice", header.sequence));
  if (header.sequence - next_in_ > settings_.reorder_frames_max)
    return broken(
        fmt::format("frame {} came while {} is awaited: too far ahead", header.sequence, next_in_));
  if (costs(header.op)) {
    const auto open = admitted_ - told_;
    if (open != 0 && open + frame_cost(header) > settings_.window_here)
      return broken(fmt::format("the peer sends {} bytes more than its credit",
                                open + frame_cost(header) - settings_.window_here));
    admitted_ += frame_cost(header);
  }
  if (next)
    next_admitted_ = true;
  else
    early_.emplace(header.sequence, incoming_frame{});
  return {};
}

void channel::count_received(const incoming_frame& frame) noexcept {
  if (!costs(frame.header.op))
    return;
  taken_ += frame_cost(frame.header);
  stats_.bytes_received += frame.header.meta_bytes + frame.header.payload_bytes;
  if (frame.header.op == opcode::message)
    ++stats_.messages_received;
}

void channel::take(incoming_frame frame, std::vector<incoming_frame>& in_order) {
  if (!is_sequenced(frame.header.op)) {
    in_order.push_back(std::move(frame));
    return;
  }
  if (next_admitted_ && frame.header.sequence == next_in_) {
    next_admitted_ = false;
    count_received(frame);
    in_order.push_back(std::move(frame));
    ++next_in_;
  } else {
    const auto place = early_.find(frame.header.sequence);
    TROUPE_CHECK(place != early_.end(), "frame {} was not admitted", frame.header.sequence);
    place->second = std::move(frame);
    place->second.arrived = true;
    if (place->first != next_in_)
      stats_.reorder_frames_max = std::max(stats_.reorder_frames_max, reorder_frames());
  }
  while (!early_.empty() && early_.begin()->first == next_in_ && early_.begin()->second.arrived) {
    count_received(early_.begin()->second);
    in_order.push_back(std::move(early_.begin()->second));
    early_.erase(early_.begin());
    ++next_in_;
  }
}

bool channel::credit_due() const noexcept {
  const bool much = granted_ - told_ >= std::max<std::uint64_t>(settings_.window_here / 4, 1);
  return much || (told_ < asked_by_peer_ && asked_by_peer_ <= granted_);
}

std::uint64_t channel::credit_left() const noexcept {
  const auto open = sent_ - credited_;
  return open > settings_.window_of_peer ? 0 : settings_.window_of_peer - open;
}

std::uint32_t channel::reorder_frames() const noexcept {
  return static_cast<std::uint32_t>(early_.size() + (next_admitted_ ? 1 : 0));
}

} // namespace troupe::net
