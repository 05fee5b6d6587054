#include "actors/membership/member.hpp"

#include "troupe/base/log.hpp"

#include <algorithm>
#include <utility>

namespace troupe::actors {

namespace {

constexpr std::chrono::milliseconds tick_interval{500};
/// Between two looks at whom to dial, while somebody is missing.
constexpr std::chrono::milliseconds dial_interval{50};

time_point now() { return std::chrono::steady_clock::now(); }

std::int64_t wall_clock_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

/// What others must hear of at once: everything but counters.
bool same_news(const node_card& a, const node_card& b) {
  const auto same = [](const replica_report& x, const replica_report& y) {
    return x.status.replica == y.status.replica && x.status.state == y.status.state;
  };
  return a.state == b.state && a.hub == b.hub && a.router == b.router &&
         std::equal(a.replicas.begin(), a.replicas.end(), b.replicas.begin(), b.replicas.end(),
                    same);
}

} // namespace

member_state::~member_state() {
  if (wire_ != nullptr) {
    wire_->observe({});
    wire_->unpublish(member_name);
  }
}

void member_state::on_wire(const net::wire_event& what) {
  using kind = net::wire_event::kind;
  switch (what.what) {
  case kind::up:
    on_up(what);
    break;
  case kind::down:
    peers_.erase(what.name);
    roster_->went_down(what.name, what.why, now());
    break;
  case kind::refused:
    roster_->refused(what.name, what.where, what.why, now());
    if (roster_->forgives(what.name))
      wire_->forgive(what.peer);
    break;
  case kind::heard:
    roster_->heard(what.name, what.where, now());
    break;
  }
  publish();
}

void member_state::on_up(const net::wire_event& what) {
  roster_->came_up(what.name, what.where, now());
  wire_->lookup<member_peer>(
      what.node, member_name,
      [self = member_actor{self_}, name = what.name](const result<member_peer>& found) {
        if (found)
          post(self, attach_atom::value, name, *found);
        else if (found.error().code != errc::not_found)
          log_warn("node '{}': {}", name, to_string(found.error()));
      });
}

void member_state::meet(const std::string& name, const member_peer& peer) {
  peers_[name] = peer;
  if (!own_.name.empty())
    tell(self_, peer, own_);
}

void member_state::show(node_card own) {
  const bool news = !same_news(own_, own);
  own_ = std::move(own);
  if (news)
    send_card();
}

void member_state::send_card() {
  own_.clock_ms = wall_clock_ms();
  for (const auto& [name, peer] : peers_)
    tell(self_, peer, own_);
}

void member_state::dial_due() {
  for (const auto& where : roster_->due(now()))
    wire_->connect(where, [self = member_actor{self_}, where](const result<caf::node_id>& outcome) {
      post(self, dialed_atom::value, where.host, where.port,
           outcome ? caf::error{} : to_caf(outcome.error()));
    });
}

void member_state::tick() {
  tell_later(self_, tick_interval, tick_atom::value);
  roster_->measure(wire_->stats());
  if (!own_.name.empty())
    send_card();
  publish();
}

void member_state::publish() {
  if (node_)
    tell(self_, node_, roster_view_ptr{std::make_shared<roster_view>(roster_->view())});
}

/// An order goes to the process that it names, from wherever it came in.
void member_state::order(const drain_order& what) {
  if (what.node == own_.name)
    return tell(self_, node_, drain_atom::value, what);
  if (const auto found = peers_.find(what.node); found != peers_.end())
    return tell(self_, found->second, drain_atom::value, what);
  log_warn("an order to drain node '{}' finds no such node", what.node);
}

member_actor::behavior_type member_state::make_behavior(member_options options) {
  wire_ = options.wire;
  roster_ = std::make_unique<roster>(std::move(options.who));
  wire_->observe([self = caf::actor_cast<caf::weak_actor_ptr>(member_actor{self_})](
                     const net::wire_event& what) {
    if (const auto to = caf::actor_cast<caf::strong_actor_ptr>(self))
      post(caf::actor_cast<member_actor>(to), std::make_shared<const net::wire_event>(what));
  });
  return {
      [this](const node_card& card) {
        roster_->take(card, own_, wall_clock_ms());
        publish();
      },
      [this](drain_atom, const drain_order& what) { order(what); },
      [this](attach_atom, const node_core& node) {
        node_ = node;
        tick();
        tell(self_, self_, dial_atom::value);
      },
      [this](own_atom, node_card& own) { show(std::move(own)); },
      [this](const wire_event_ptr& what) { on_wire(*what); },
      [this](attach_atom, const std::string& name, const member_peer& peer) { meet(name, peer); },
      [this](dialed_atom, const std::string& host, std::uint16_t port, const caf::error& why) {
        roster_->dialed({host, port}, from_caf(why), now());
      },
      [this](dial_atom) {
        tell_later(self_, dial_interval, dial_atom::value);
        dial_due();
      },
      [this](tick_atom) { tick(); },
  };
}

member_actor spawn_member(caf::actor_system& system, member_options options) {
  const auto behavior = [](member_actor::stateful_pointer<member_state> self,
                           member_options given) {
    return state(self).make_behavior(std::move(given));
  };
  auto& wire = *options.wire;
  auto made = system.spawn(behavior, std::move(options));
  wire.publish(member_name, caf::actor_cast<member_peer>(made));
  return made;
}

} // namespace troupe::actors
