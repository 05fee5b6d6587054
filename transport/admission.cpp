#include "transport/admission.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace troupe::net {

static_assert(header_bytes_max <= meta_bytes_max);

std::shared_ptr<gauge> admission::open(const node_id& peer) {
  auto queue = std::make_shared<gauge>();
  queue->bytes_max = limits_.queue_bytes_max;
  const std::lock_guard guard{mutex_};
  doors_[peer] = door{queue, false};
  return queue;
}

void admission::start_drain(const node_id& peer) {
  const std::lock_guard guard{mutex_};
  if (const auto found = doors_.find(peer); found != doors_.end())
    found->second.draining = true;
}

void admission::forget(const node_id& peer) {
  const std::lock_guard guard{mutex_};
  doors_.erase(peer);
}

result<std::shared_ptr<gauge>> admission::find(const node_id& peer) const {
  const auto found = doors_.find(peer);
  if (found == doors_.end())
    return fail(errc::peer_down, fmt::format("node {} is not connected", to_string(peer)));
  if (found->second.draining)
    return fail(errc::draining, fmt::format("node {} takes no more messages", to_string(peer)));
  return found->second.queue;
}

result<ticket> admission::admit(const node_id& peer, std::size_t header_bytes,
                                std::size_t payload_bytes, pressure how) {
  if (header_bytes > header_bytes_max || payload_bytes > limits_.payload_bytes_max)
    return fail(errc::limit_exceeded,
                fmt::format("a message of {} + {} bytes; at most {} + {} are sent", header_bytes,
                            payload_bytes, header_bytes_max, limits_.payload_bytes_max));
  const auto bytes = bytes_of(header_bytes, payload_bytes);
  // The lock makes sure that nothing is counted in after a drain has started.
  const std::lock_guard guard{mutex_};
  const auto queue = find(peer);
  if (!queue)
    return fail(queue.error());
  auto& gauge = **queue;
  const auto full = [&] {
    const auto queued = gauge.queued_bytes.load();
    return queued > 0 && queued + bytes > gauge.bytes_max;
  };
  if (how == pressure::refuse && full()) {
    gauge.pressed = true;
    // The queue may have drained before it could see that somebody waits.
    if (!gauge.relaxed() || full())
      return fail(errc::busy, fmt::format("{} bytes wait for node {}", gauge.queued_bytes.load(),
                                          to_string(peer)));
  }
  return ticket{*queue, gauge.queued_bytes += bytes};
}

result<void> may_listen(const identity& self, const address& where) {
  if (self.secret.empty() && !is_loopback(where))
    return fail(errc::unauthorized,
                fmt::format("node '{}' has no secret and may not listen at {}: set secret_file, or "
                            "listen at 127.0.0.1",
                            self.name, to_string(where)));
  return {};
}

outgoing_frame make_message(std::span<const std::byte> header, shared_bytes payload) {
  outgoing_frame out;
  out.header.op = opcode::message;
  out.header.meta_bytes = static_cast<std::uint32_t>(header.size());
  out.header.payload_bytes = static_cast<std::uint32_t>(payload.size());
  out.head.resize(frame_header_bytes + header.size());
  std::copy(header.begin(), header.end(), out.head.begin() + frame_header_bytes);
  out.queued_bytes = admission::bytes_of(header.size(), payload.size());
  out.payload = std::move(payload);
  return out;
}

} // namespace troupe::net
