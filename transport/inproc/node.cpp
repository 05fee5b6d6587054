#include "transport/inproc/node.hpp"

#include "transport/wire.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace troupe::net::inproc {

node::node(network& net, node_options options, handler& user)
    : net_{net}, user_{user}, door_{options.limits}, mesh_{{.options = options,
                                                            .where = {},
                                                            .random =
                                                                [&net](std::span<std::byte> out) {
                                                                  for (auto& b : out)
                                                                    b = std::byte(
                                                                        net.random_.below(256));
                                                                },
                                                            .listens_at = {},
                                                            .on_room = {}},
                                                           *this,
                                                           door_} {}

result<address> node::listen(const address& where) {
  if (auto allowed = may_listen(self(), where); !allowed)
    return fail(allowed.error());
  if (listens_at_.port != 0)
    return fail(errc::conflict, fmt::format("node '{}' listens already", self().name));
  auto at = where;
  if (at.port == 0)
    at.port = net_.next_port_++;
  if (net_.listener_at(at) != nullptr)
    return fail(errc::io_failure, fmt::format("{} is taken by another node", to_string(at)));
  listens_at_ = at;
  mesh_.listens_at(at);
  return at;
}

dial_id node::dial(const address& where) {
  const dial_id id{next_dial_++};
  net_.schedule(duration{0}, *this,
                [id, where](node& n) { n.mesh_.dial(id, where, n.net_.now()); });
  return id;
}

result<std::uint64_t> node::send(const node_id& to, std::span<const std::byte> header,
                                 shared_bytes payload, pressure how) {
  if (dead_)
    return fail(errc::peer_down, "this node is gone");
  auto in = door_.admit(to, header.size(), payload.size(), how);
  if (!in)
    return fail(in.error());
  mesh_.enqueue(to, *in, make_message(header, std::move(payload)));
  mesh_.flush(net_.now());
  return in->queued_bytes;
}

void node::drain(const node_id& peer) { mesh_.drain(peer, net_.now()); }

void node::close(const node_id& peer) {
  mesh_.close(peer, net_.now());
  post([] {}); // Nothing may be due; the event of this call is.
}

void node::post(std::function<void()> job) {
  jobs_.push_back(std::move(job));
  net_.schedule(duration{0}, *this, [](node&) {});
}

void node::stop() {
  if (dead_)
    return;
  const auto& clocks = mesh_.settings().options.timing;
  mesh_.drain_all(net_.now());
  settle();
  static_cast<void>(net_.run_until([&] { return mesh_.connections() == 0 && jobs_.empty(); },
                                   clocks.drain_timeout + clocks.dead_after));
  mesh_.close_all(net_.now());
  settle();
  dead_ = true;
  listens_at_ = {};
}

void node::settle() {
  if (std::exchange(settling_, true))
    return;
  std::vector<event> events;
  while (!dead_ && (mesh_.has_events() || !jobs_.empty())) {
    mesh_.take_events(events);
    for (const auto& what : events)
      deliver(what, user_);
    for (const auto& job : std::exchange(jobs_, {}))
      job();
  }
  settling_ = false;
}

void node::open(link_id link, const address& where) {
  auto made = std::make_shared<cable>();
  made->ends[0] = this;
  made->link[0] = link;
  links_[link] = {made, 0};
  made->ends[1] = net_.listener_at(where);
  if (made->ends[1] != nullptr) {
    net_.across(*this, *made->ends[1], [made](node& n) { n.accept(made); });
    return;
  }
  net_.schedule(net_.delay(), *this, [made, where](node& n) {
    n.far_end_closed(made, 0, fmt::format("nobody listens at {}", to_string(where)));
  });
}

void node::accept(const std::shared_ptr<cable>& from) {
  if (from->closed[0])
    return;
  const auto mine = mesh_.accept(net_.now());
  if (!mine) {
    from->closed[1] = true;
    net_.across(*this, *from->ends[0], [from](node& n) {
      n.far_end_closed(from, 0, "the node has its most connections already");
    });
    return;
  }
  from->link[1] = *mine;
  from->accepted = true;
  links_[*mine] = {from, 1};
}

sending node::transmit(link_id link, outgoing_frame frame) {
  const auto found = links_.find(link);
  if (found == links_.end() || found->second.to->ends[1] == nullptr)
    return sending::pending;
  const auto& [to, side] = found->second;
  const auto far = 1 - side;
  ++to->under_way[side];
  auto ref = std::make_shared<const outgoing_frame>(std::move(frame));
  net_.across(*this, *to->ends[far], [on = to, far, ref](node& n) { n.arrive(on, far, ref); });
  return sending::pending;
}

/// A frame reaches the side `side` of a link.
void node::arrive(const std::shared_ptr<cable>& on, std::size_t side, const frame_ref& frame) {
  const auto from = 1 - side;
  if (!on->accepted && !on->closed[0] && !on->closed[1]) {
    net_.across(*on->ends[from], *this, [on, side, frame](node& n) { n.arrive(on, side, frame); });
    return;
  }
  --on->under_way[from];
  if (on->closed[side] || on->dropped[from])
    return;
  take({on, side}, *frame);
  const auto link = on->link[from];
  net_.across(*this, *on->ends[from], [link, bytes = frame->queued_bytes](node& n) {
    n.mesh_.frame_sent(link, bytes, n.net_.now());
  });
}

void node::take(const plug& at, const outgoing_frame& frame) {
  const auto header = decode_header(frame.head, frame.payload.size());
  if (!header) {
    mesh_.link_down(at.to->link[at.side], header.error(), net_.now());
    return;
  }
  const auto link = mesh_.admit(*header, at.to->link[at.side], net_.now());
  if (!link)
    return;
  incoming_frame in;
  in.header = *header;
  const auto meta = std::span{frame.head}.subspan(frame_header_bytes);
  if (const auto bytes = meta.size() + frame.payload.size(); bytes > 0) {
    auto buffer = pool_.take(bytes);
    const auto end = std::copy(meta.begin(), meta.end(), buffer.bytes().begin());
    std::copy_n(frame.payload.data(), frame.payload.size(), end);
    const auto all = std::move(buffer).share(mesh_.meter_of(*link));
    in.meta = all.slice(0, meta.size());
    in.payload =
        frame.payload.empty() ? shared_bytes{} : all.slice(meta.size(), frame.payload.size());
  }
  mesh_.frame_arrived(*link, std::move(in), net_.now());
}

void node::close(link_id link, parting how) {
  const auto found = links_.find(link);
  if (found == links_.end())
    return;
  const auto [on, side] = found->second;
  links_.erase(found);
  on->closed[side] = true;
  on->dropped[side] = how == parting::drop;
  auto* const peer = on->ends[1 - side];
  if (peer == nullptr || on->closed[1 - side])
    return;
  net_.across(*this, *peer, [on = on, far = 1 - side](node& n) {
    n.far_end_closed(on, far, "the peer closed the link");
  });
}

/// The other end of a link is closed, once its last frames have come.
void node::far_end_closed(const std::shared_ptr<cable>& on, std::size_t side,
                          const std::string& note) {
  const auto from = 1 - side;
  if (on->closed[side])
    return;
  if (on->closed[from] && !on->dropped[from] && on->under_way[from] > 0) {
    net_.schedule(net_.delay(), *this,
                  [on, side, note](node& n) { n.far_end_closed(on, side, note); });
    return;
  }
  const auto link = on->link[side];
  mesh_.link_down(link, {errc::peer_down, note}, net_.now());
}

void node::break_links(const node* peer, const std::string& note) {
  for (const auto& [link, at] : std::map{links_}) {
    auto* const far = at.to->ends[1 - at.side];
    if (far == nullptr || (peer != nullptr && far != peer))
      continue;
    const auto on = at.to;
    on->dropped = {true, true};
    net_.schedule(net_.delay(), *far,
                  [on, side = 1 - at.side, note](node& n) { n.far_end_closed(on, side, note); });
  }
}

} // namespace troupe::net::inproc
