// The part of the host that sends.
#include "transport/caf/host.hpp"
#include "troupe/base/log.hpp"
#include "troupe/transport/caf.hpp"

#include <fmt/core.h>

#include <utility>

namespace troupe::net::seam {

/// Sends a parcel, and dials the node when it is the first.
result<void> host::dispatch(peer& to, parcel what, pressure how) {
  if (stopped_)
    return fail(errc::draining, "the actor system is ending");
  std::optional<address> where;
  auto sent = to.send(*net_, std::move(what), how, where);
  if (where) {
    // Never from here: CAF may hold the mutex of the proxy registry.
    net_->post([this, node = to.node(), at = *where] { dial_for(peer_of(node), at); });
  }
  return sent;
}

void host::send_small(peer& to, const envelope& outside, std::vector<char> stream) {
  if (auto sent = dispatch(to, pack(outside, {std::move(stream), {}}), pressure::insist); !sent)
    log_debug("wire: nothing sent: {}", sent.error().note);
}

caf::error host::serialise(const outgoing& what, envelope& outside, content& inside) {
  // Most messages fit; growing to there by doubling costs five allocations.
  constexpr std::size_t usual_bytes = 256;
  inside.stream.reserve(usual_bytes);
  const buffers_out collect{inside};
  caf::binary_serializer sink{system_, inside.stream};
  if (what.from != nullptr) {
    outside.src = what.from->id();
    outside.foreign_source = what.from->node() != system_.node();
    if (outside.foreign_source) {
      auto node = what.from->node();
      if (auto e = sink(node))
        return e;
    } else if (system_.registry().get(what.from->id()) == nullptr) {
      system_.registry().put(what.from->id(), what.from);
    }
  }
  static const std::vector<caf::strong_actor_ptr> no_stages;
  auto stages = what.stages == nullptr ? no_stages : *what.stages;
  if (auto e = sink(stages))
    return e;
  return settings_.types.save(sink, *what.content);
}

void host::send(peer& to, const outgoing& what) {
  envelope outside{.what = verb::message, .id = what.id.integer_value(), .dst = what.to};
  content inside;
  if (auto e = serialise(what, outside, inside)) {
    log_warn("wire: a message cannot be serialised: {}", system_.render(e));
    return what.id.is_response() ? withhold(to, what, std::move(e)) : bounce(what, e);
  }
  const bool asks = what.id.is_request() && what.from != nullptr && !outside.foreign_source;
  if (asks)
    to.asks(what.from->id(),
            {caf::actor_cast<caf::weak_actor_ptr>(what.from), what.id.response_id()});
  // An answer or an exit that is lost leaves somebody waiting for ever.
  const bool must = what.id.is_response() || (settings_.keep_all && !what.id.is_request()) ||
                    what.content->match_elements<caf::exit_msg>() ||
                    what.content->match_elements<caf::down_msg>();
  const auto sent =
      dispatch(to, pack(outside, std::move(inside)), must ? pressure::insist : pressure::refuse);
  if (sent)
    return;
  if (asks)
    to.answered(what.from->id(), what.id.response_id());
  const bool gone = sent.error().code == errc::peer_down || sent.error().code == errc::draining;
  if (!what.id.is_request() && !gone && dropped_++ % 1000 == 0)
    log_warn("wire: a message is dropped ({} so far): {}", dropped_.load(), sent.error().note);
  if (what.id.is_response() && !gone)
    return withhold(to, what, to_caf_error(sent.error()));
  bounce(what, gone ? caf::make_error(caf::exit_reason::remote_link_unreachable)
                    : to_caf_error(sent.error()));
}

/// An answer that cannot be sent: the requester hears why instead.
void host::withhold(peer& to, const outgoing& what, caf::error why) {
  std::vector<char> stream;
  if (write(system_, stream, why))
    stream.clear();
  send_small(to, {.what = verb::bounce, .id = what.id.integer_value(), .dst = what.to},
             std::move(stream));
}

void host::bounce(const outgoing& what, const caf::error& why) {
  if (what.id.is_request() && what.from != nullptr)
    what.from->enqueue(nullptr, what.id.response_id(), caf::make_message(why), nullptr);
}

void host::tell_down(peer& to, caf::actor_id actor, const caf::error& reason) {
  std::vector<char> stream;
  auto why = reason;
  if (write(system_, stream, why))
    stream.clear();
  send_small(to, {.what = verb::down, .src = actor}, std::move(stream));
}

void host::link_later(const std::shared_ptr<peer>& to, verb what, caf::strong_actor_ptr observer,
                      caf::actor_id of) {
  net_->post([this, to, what, observer = std::move(observer), of] {
    if (system_.registry().get(observer->id()) == nullptr)
      system_.registry().put(observer->id(), observer);
    send_small(*to, {.what = what, .src = observer->id(), .dst = of});
  });
}

std::vector<char> host::place(caf::node_id node, address where) {
  std::vector<char> out;
  if (auto e = write(system_, out, node, where.host, where.port))
    log_error("wire: a node id cannot be serialised: {}", system_.render(e));
  return out;
}

/// Says who this node is and whom it knows. The first message of each connection.
void host::introduce(const node_id& to) {
  std::vector<parcel> out;
  {
    const std::lock_guard guard{mutex_};
    out.push_back(pack({.what = verb::intro}, {place(system_.node(), listens_at_), {}}));
    for (const auto& [node, where] : places_)
      out.push_back(pack({.what = verb::about}, {place(node, where), {}}));
  }
  for (auto& what : out)
    static_cast<void>(net_->send(to, what.header, std::move(what.payload), pressure::insist));
}

} // namespace troupe::net::seam
