#include "transport/mesh.hpp"

#include "troupe/base/check.hpp"
#include "troupe/base/log.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace troupe::net {

void deliver(const event& what, handler& to) {
  struct call {
    handler& to;
    void operator()(const message_event& e) { to.message(e.from, e.header.view(), e.payload); }
    void operator()(const peer_up_event& e) { to.peer_up(e.peer); }
    void operator()(const peer_down_event& e) { to.peer_down(e.peer, e.why); }
    void operator()(const drained_event& e) { to.drained(e.to); }
    void operator()(const dialed_event& e) { to.dialed(e.dial, e.where, e.outcome); }
    void operator()(const refused_event& e) { to.refused(e.who, e.why); }
    void operator()(const heard_event& e) { to.heard_of(e.other); }
  };
  std::visit(call{to}, what);
}

mesh::mesh(connection_settings settings, link_driver& driver, admission& door)
    : settings_{std::move(settings)}, driver_{driver}, door_{door} {}

mesh::entry& mesh::add(bool dialled, time_point now) {
  const link_id link{next_link_++};
  auto made = std::make_unique<entry>(link, settings_, dialled, now);
  auto& out = *connections_.emplace(link, std::move(made)).first->second;
  by_token_.emplace(out.connection.token(), &out);
  promised_ = std::min(promised_, now);
  return out;
}

void mesh::dial(dial_id dial, const address& where, time_point now) {
  if (closing_ || connections_.size() >= settings_.options.limits.connections_max) {
    events_.push_back(dialed_event{
        dial, where,
        fail(closing_ ? errc::draining : errc::limit_exceeded,
             closing_ ? "this node is stopping" : "this node has its most connections already")});
    return;
  }
  auto& made = add(true, now);
  made.dials.push_back({dial, where});
  driver_.open(made.connection.link(), where);
  connection_effects effects;
  made.connection.begin(effects);
  apply(made, effects, now);
}

void mesh::enqueue(const node_id& to, const ticket& admitted, outgoing_frame frame) {
  const auto found = peers_.find(to);
  if (found == peers_.end() || found->second->connection.queue() != admitted.queue)
    return;
  auto& of = *found->second;
  of.connection.enqueue(std::move(frame));
  if (!std::exchange(of.touched, true))
    touched_.push_back(&of);
}

void mesh::pump(entry& of, time_point now) {
  // A stream of small messages is worth a longer wait than a pair of them.
  constexpr std::size_t stream_messages = 4;
  of.open_until = now + of.gathers * (of.connection.queued() >= stream_messages ? 4 : 1);
  of.touched = false;
  of.connection.pump(effects_);
  apply(of, effects_, now);
}

void mesh::flush(time_point now) {
  const auto ready = [&](const entry* of) {
    return now >= of->open_until || !of->connection.has_space();
  };
  // Pumping may end connections, and changes the list.
  for (auto at = std::find_if(touched_.begin(), touched_.end(), ready); at != touched_.end();
       at = std::find_if(touched_.begin(), touched_.end(), ready)) {
    auto& of = **at;
    touched_.erase(at);
    pump(of, now);
  }
}

void mesh::drain(const node_id& peer, time_point now) {
  const auto found = peers_.find(peer);
  if (found == peers_.end())
    return;
  flush(now);
  door_.start_drain(peer);
  found->second->connection.drain(now, effects_);
  apply(*found->second, effects_, now);
}

void mesh::close(const node_id& peer, time_point now) {
  const auto found = peers_.find(peer);
  if (found == peers_.end())
    return;
  found->second->connection.end({.why = {errc::cancelled, "closed by this node"}}, effects_);
  apply(*found->second, effects_, now);
}

void mesh::drain_all(time_point now) {
  closing_ = true;
  std::vector<node_id> ready;
  std::vector<link_id> rest;
  for (const auto& [link, of] : connections_) {
    if (of->connection.state() == connection_state::ready)
      ready.push_back(of->connection.peer().id);
    else if (of->connection.state() != connection_state::draining)
      rest.push_back(link);
  }
  for (const auto& id : ready)
    drain(id, now);
  for (const auto link : rest)
    link_down(link, {errc::draining, "this node is stopping"}, now);
}

void mesh::close_all(time_point now) {
  while (!connections_.empty()) {
    auto& of = *connections_.begin()->second;
    of.connection.end({.why = {errc::cancelled, "this node has stopped"}}, effects_);
    apply(of, effects_, now);
  }
}

std::optional<link_id> mesh::accept(time_point now) {
  if (connections_.size() >= settings_.options.limits.connections_max) {
    log_warn("a node dials while there are {} connections: refused", connections_.size());
    return {};
  }
  return add(false, now).connection.link();
}

std::optional<link_id> mesh::admit(const frame_header& header, std::optional<link_id> from,
                                   time_point now) {
  entry* of = nullptr;
  if (header.token != 0) {
    const auto found = by_token_.find(header.token);
    of = found == by_token_.end() ? nullptr : found->second;
  } else if (from) {
    const auto found = connections_.find(*from);
    of = found == connections_.end() ? nullptr : found->second.get();
  }
  if (of == nullptr) {
    ++strays_;
    return {};
  }
  const auto link = of->connection.link();
  if (auto in = of->connection.admit(header, now); !in) {
    of->connection.end({.why = in.error()}, effects_);
    apply(*of, effects_, now);
    return {};
  }
  return link;
}

std::shared_ptr<held_meter> mesh::meter_of(link_id link) const {
  const auto found = connections_.find(link);
  return found == connections_.end() ? nullptr : found->second->connection.meter();
}

void mesh::frame_arrived(link_id link, incoming_frame frame, time_point now) {
  const auto found = connections_.find(link);
  if (found == connections_.end())
    return;
  found->second->connection.receive(std::move(frame), now, effects_);
  apply(*found->second, effects_, now);
}

void mesh::frame_sent(link_id link, std::uint64_t queued_bytes, time_point now) {
  const auto found = connections_.find(link);
  if (found == connections_.end())
    return;
  auto& of = *found->second;
  of.connection.sent(queued_bytes);
  relax(of);
  if (of.connection.queue() != nullptr)
    of.connection.pump(effects_);
  apply(of, effects_, now);
}

void mesh::link_down(link_id link, const error& why, time_point now) {
  const auto found = connections_.find(link);
  if (found == connections_.end())
    return;
  found->second->connection.link_down(why, effects_);
  apply(*found->second, effects_, now);
}

time_point mesh::tick(time_point now) {
  const auto late = settings_.options.timing.heartbeat / 2;
  const auto stall = promised_ < now - late ? now - promised_ : duration{0};
  std::vector<link_id> links;
  for (const auto& [link, of] : connections_)
    links.push_back(link);
  auto next = time_point::max();
  for (const auto link : links) {
    const auto found = connections_.find(link);
    if (found == connections_.end())
      continue;
    auto& of = *found->second;
    if (stall > duration{0})
      of.connection.forgive(stall);
    next = std::min(next, of.connection.tick(now, effects_));
    apply(of, effects_, now);
  }
  settle_waiting(now);
  for (const auto& dial : waiting_)
    next = std::min(next, dial.deadline);
  promised_ = next;
  return next;
}

void mesh::take_events(std::vector<event>& out) {
  out.clear();
  std::swap(out, events_);
}

std::vector<peer_stats> mesh::stats() const {
  std::vector<peer_stats> out;
  for (const auto& [link, of] : connections_) {
    if (peers_.contains(of->connection.peer().id) && of->connection.queue() != nullptr) {
      out.push_back(of->connection.stats());
      out.back().lanes = driver_.lanes(link);
    }
  }
  return out;
}

void mesh::transmit(entry& of, connection_effects& effects) {
  while (!effects.send.empty()) {
    for (auto& frame : effects.send) {
      const auto queued_bytes = frame.queued_bytes;
      if (driver_.transmit(of.connection.link(), std::move(frame)) == sending::done)
        of.connection.sent(queued_bytes);
    }
    effects.send.clear();
    // What the link took at once made room for more, or was the last before the bye.
    if (of.connection.wants_pump())
      of.connection.pump(effects);
  }
  relax(of);
}

void mesh::relax(entry& of) {
  const auto& queue = of.connection.queue();
  if (queue != nullptr && queue->pressed.load(std::memory_order_relaxed) && queue->relaxed() &&
      queue->pressed.exchange(false))
    events_.push_back(drained_event{of.connection.peer().id});
}

/// Does what a connection asks for. The last thing in every call: `of` may be gone afterwards.
void mesh::apply(entry& of, connection_effects& effects, time_point now) {
  transmit(of, effects);
  while (effects.asks) {
    decide(of, effects, now);
    transmit(of, effects);
  }
  if (std::exchange(effects.ready, false))
    came_up(of, now);
  const auto& from = of.connection.peer().id;
  for (auto& message : effects.deliver)
    events_.push_back(message_event{from, std::move(message.meta), std::move(message.payload)});
  effects.deliver.clear();
  for (const auto& other : effects.heard)
    hear(other);
  effects.heard.clear();
  if (std::exchange(effects.drains, false))
    door_.start_drain(from);
  if (effects.end) {
    const auto how = std::move(*effects.end);
    effects.end.reset();
    ended(of, how, now);
  }
}

} // namespace troupe::net
