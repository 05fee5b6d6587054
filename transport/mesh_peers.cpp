// The part of a mesh that knows who is who: duplicates, fences, dials, gossip.
#include "transport/mesh.hpp"

#include "troupe/base/log.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace troupe::net {

namespace {

constexpr std::size_t fenced_max = 4096;
constexpr std::size_t known_max = 4096;

} // namespace

bool mesh::is_duplicate(const entry& of) const {
  const auto& self = settings_.options.self.id;
  const auto& peer = of.connection.peer();
  const bool decides = self < peer.id;
  const bool dialled = of.connection.dialled();
  if (peers_.contains(peer.id))
    return decides || dialled;
  if (!decides)
    return false;
  const auto rivals = [&](const auto& item) {
    const auto& other = *item.second;
    if (&other == &of)
      return false;
    if (other.connection.committed() && other.connection.peer().id == peer.id)
      return true;
    // Our own dial to the same address comes first: it will be this node.
    return !dialled && other.connection.state() == connection_state::dialing &&
           !other.connection.knows_peer() && !other.dials.empty() && peer.listens_at.port != 0 &&
           other.dials.front().where == peer.listens_at;
  };
  return std::any_of(connections_.begin(), connections_.end(), rivals);
}

std::optional<refusal> mesh::objection(const entry& of) const {
  const auto& self = settings_.options.self;
  const auto& peer = of.connection.peer();
  const auto refuse = [&](refusal_kind kind, std::string note) {
    return refusal{kind, std::move(note), self.id, self.name};
  };
  if (fenced_.contains(peer.id))
    return refuse(refusal_kind::fenced,
                  fmt::format("node '{}' was declared dead by node '{}' and returns once both "
                              "forgive that, or when it is started anew",
                              peer.name, self.name));
  if (closing_)
    return refuse(refusal_kind::draining, fmt::format("node '{}' is stopping", self.name));
  if (is_duplicate(of))
    return refuse(refusal_kind::duplicate,
                  fmt::format("nodes '{}' and '{}' have another connection", self.name, peer.name));
  for (const auto& [id, other] : peers_) {
    if (id != peer.id && other->connection.peer().name == peer.name)
      return refuse(refusal_kind::same_name,
                    fmt::format("node '{}' is connected to another node named '{}', at {}: a name "
                                "is for one running node",
                                self.name, peer.name,
                                to_string(other->connection.peer().listens_at)));
  }
  return {};
}

void mesh::decide(entry& of, connection_effects& effects, time_point now) {
  if (auto why = objection(of))
    of.connection.refuse(std::move(*why), effects);
  else
    of.connection.approve(now, effects);
}

void mesh::came_up(entry& of, time_point now) {
  const auto id = of.connection.peer().id;
  if (const auto old = peers_.find(id); old != peers_.end()) {
    // The node that decides has chosen anew, so the old connection is over on its side.
    connection_effects effects;
    old->second->connection.end(
        {.why = {errc::peer_down, "the peer has made another connection"}, .clean = true}, effects);
    apply(*old->second, effects, now);
  }
  of.connection.use(door_.open(id));
  promised_ = std::min(promised_, now);
  peers_[id] = &of;
  const auto facts = of.connection.facts();
  log_info("node '{}' ({}) is up, {} {}", facts.name, to_string(id),
           facts.dialed_here ? "dialled at" : "listens at", to_string(facts.listens_at));
  driver_.came_up(of.connection.link(), of.connection.peer().where);
  of.gathers = driver_.gathers(of.connection.link());
  events_.push_back(peer_up_event{facts});
  settle_dials(of, id);
  settle_waiting(now);
  introduce(of);
}

/// Tells a new peer about the others, and the others about it.
void mesh::introduce(entry& of) {
  const auto self_of = [](const entry& e) {
    const auto& peer = e.connection.peer();
    return known_node{peer.id, peer.name, peer.listens_at};
  };
  std::vector<known_node> others;
  std::vector<entry*> listeners;
  for (const auto& [id, other] : peers_) {
    if (other == &of)
      continue;
    listeners.push_back(other);
    if (other->connection.peer().listens_at.port != 0 && others.size() < gossip_nodes_max)
      others.push_back(self_of(*other));
  }
  const auto less = [](const known_node& a, const known_node& b) { return a.id < b.id; };
  std::sort(others.begin(), others.end(), less);
  connection_effects effects;
  of.connection.gossip(others, effects);
  transmit(of, effects);
  if (of.connection.peer().listens_at.port == 0)
    return;
  const std::vector<known_node> news{self_of(of)};
  for (auto* other : listeners) {
    if (other->connection.state() != connection_state::ready)
      continue;
    other->connection.gossip(news, effects);
    transmit(*other, effects);
  }
}

void mesh::hear(const known_node& other) {
  if (other.id == settings_.options.self.id || known_.size() >= known_max)
    return;
  auto& known = known_[other.id];
  if (known == other.listens_at)
    return;
  known = other.listens_at;
  events_.push_back(heard_event{other});
}

void mesh::fence(const node_id& id) {
  if (!fenced_.insert(id).second)
    return;
  fenced_in_order_.push_back(id);
  if (fenced_in_order_.size() > fenced_max) {
    fenced_.erase(fenced_in_order_.front());
    fenced_in_order_.pop_front();
  }
}

void mesh::forgive(const node_id& peer) {
  if (fenced_.erase(peer) > 0)
    std::erase(fenced_in_order_, peer);
}

void mesh::settle_dials(entry& of, const result<node_id>& outcome) {
  for (auto& dial : std::exchange(of.dials, {}))
    events_.push_back(dialed_event{dial.dial, dial.where, outcome});
}

void mesh::settle_waiting(time_point now) {
  const auto settled = [&](waiting_dial& dial) {
    const bool up = peers_.contains(dial.node);
    if (!up && now < dial.deadline)
      return false;
    auto outcome = up ? result<node_id>{dial.node}
                      : fail(errc::timed_out, "the other connection to the node did not complete");
    events_.push_back(dialed_event{dial.what.dial, dial.what.where, std::move(outcome)});
    return true;
  };
  std::erase_if(waiting_, settled);
}

void mesh::refused(entry& of, const connection_end& how, time_point now) {
  auto who = of.connection.facts();
  const auto& why = *how.refused;
  if (!who.id && why.by != settings_.options.self.id) {
    who.id = why.by;
    who.name = why.by_name;
  }
  if (who.listens_at.port == 0 && !of.dials.empty())
    who.listens_at = of.dials.front().where;
  if (why.kind == refusal_kind::duplicate) {
    const auto deadline = now + settings_.options.timing.dial_timeout;
    for (auto& dial : std::exchange(of.dials, {}))
      waiting_.push_back({std::move(dial), who.id, deadline});
    settle_waiting(now);
    return;
  }
  log_warn("node '{}' at {}: {}", who.name, to_string(who.listens_at), to_string(how.why));
  events_.push_back(refused_event{who, how.why});
  settle_dials(of, fail(how.why));
}

void mesh::ended(entry& of, const connection_end& how, time_point now) {
  const auto link = of.connection.link();
  const auto& peer = of.connection.peer();
  const auto up = peers_.find(peer.id);
  if (up != peers_.end() && up->second == &of) {
    peers_.erase(up);
    door_.forget(peer.id);
    if (!how.clean)
      fence(peer.id);
    log_info("node '{}' ({}) is down: {}", peer.name, to_string(peer.id), to_string(how.why));
    events_.push_back(peer_down_event{of.connection.facts(), how.why});
    if (!how.clean)
      driver_.suspect(link, peer.where);
  } else if (how.refused) {
    refused(of, how, now);
  } else {
    settle_dials(of, fail(how.why));
  }
  driver_.close(link, how.parting);
  std::erase(touched_, &of);
  by_token_.erase(of.connection.token());
  connections_.erase(link);
}

} // namespace troupe::net
