#include "actors/membership/roster.hpp"

#include "troupe/base/log.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace troupe::actors {

namespace {

using namespace std::chrono_literals;

constexpr auto first_delay = 50ms;
constexpr auto last_delay = 2000ms;
/// A node that only others named and that is down is forgotten after this.
constexpr auto memory = 10min;
constexpr std::int64_t clock_gap_ms_max = 5000;

} // namespace

std::string member_view::state_text() const {
  switch (state) {
  case member_state_kind::connecting:
    return "connecting";
  case member_state_kind::refused:
    return "refused";
  case member_state_kind::up:
    return card ? card->state : "up";
  case member_state_kind::down:
    return card && card->state == "drained" ? "drained" : "down";
  }
  return "down";
}

roster::roster(options what) : options_{std::move(what)} {
  for (const auto& node : options_.nodes) {
    if (node.name == options_.self.name)
      continue;
    auto& made = members_[node.name];
    made.seen.name = node.name;
    made.seen.where = node.where;
    made.of_file = true;
  }
}

roster::member* roster::find(const std::string& name, const net::address& where) {
  if (const auto found = members_.find(name); found != members_.end())
    return &found->second;
  if (!name.empty())
    return nullptr;
  const auto at = std::find_if(members_.begin(), members_.end(),
                               [&](const auto& item) { return item.second.seen.where == where; });
  return at == members_.end() ? nullptr : &at->second;
}

void roster::set(member& of, member_state_kind state, std::string note, time_point now) {
  auto& seen = of.seen;
  if (seen.state != state || seen.since == time_point{})
    seen.since = now;
  if (state != member_state_kind::up && !note.empty() && note != seen.note)
    log_warn("node '{}': {}", seen.name, note);
  seen.state = state;
  seen.note = std::move(note);
}

void roster::try_later(member& of, time_point now) {
  of.delay = std::clamp<std::chrono::milliseconds>(2 * of.delay, first_delay, last_delay);
  of.next_dial = now + of.delay;
}

std::vector<net::address> roster::due(time_point now) {
  std::erase_if(members_, [&](const auto& item) {
    const auto& one = item.second;
    return !one.of_file && !one.seen.up() && !one.dialling && now - one.seen.since > memory;
  });
  std::vector<net::address> out;
  for (auto& [name, one] : members_) {
    if (one.seen.since == time_point{})
      one.seen.since = now;
    if (one.seen.up() || one.dialling || one.seen.where.port == 0 || now < one.next_dial)
      continue;
    one.dialling = true;
    out.push_back(one.seen.where);
  }
  return out;
}

void roster::dialed(const net::address& where, const error& why, time_point now) {
  for (auto& [name, one] : members_) {
    if (one.seen.where != where || !one.dialling)
      continue;
    one.dialling = false;
    if (one.seen.up())
      continue;
    try_later(one, now);
    // A dial that succeeded without this name coming up found another node there.
    const auto note = why.code == errc::none
                          ? fmt::format("another node answers at {}; its file names other nodes",
                                        to_string(where))
                          : why.note;
    if (std::exchange(one.told, false))
      continue;
    one.fenced = false;
    // Why a node went says more than that it does not answer since.
    const bool went = one.seen.card && one.seen.state == member_state_kind::down;
    set(one, member_state_kind::down, went ? one.seen.note : note, now);
  }
}

void roster::came_up(const std::string& name, const net::address& where, time_point now) {
  if (name == options_.self.name || name.empty())
    return;
  auto& one = members_[name];
  one.seen.name = name;
  if (where.port != 0)
    one.seen.where = where;
  one.delay = {};
  one.fenced = false;
  one.seen.card.reset();
  set(one, member_state_kind::up, "", now);
}

void roster::went_down(const std::string& name, const error& why, time_point now) {
  const auto found = members_.find(name);
  if (found == members_.end() || !found->second.seen.up())
    return;
  auto& one = found->second;
  if (!one.of_file && !one.seen.card) {
    members_.erase(found);
    return;
  }
  try_later(one, now);
  one.seen.wire = {};
  // A process that said that it ends may close its end before the last frame to it is out.
  const bool said = one.seen.card && one.seen.card->state != "up";
  set(one, member_state_kind::down, said || why.code == errc::draining ? "has left" : why.note,
      now);
}

void roster::refused(const std::string& name, const net::address& where, const error& why,
                     time_point now) {
  auto* one = find(name, where);
  if (one == nullptr || one->seen.up())
    return;
  one->told = true;
  // A stopping node comes back later; that is not a misfit.
  one->fenced = why.code == errc::peer_down;
  if (one->fenced)
    return set(*one, member_state_kind::down,
               "was given up while it lived; the two meet again over a new connection", now);
  const bool misfit = why.code != errc::draining && why.code != errc::limit_exceeded;
  set(*one, misfit ? member_state_kind::refused : member_state_kind::down, why.note, now);
}

bool roster::forgives(const std::string& name) const {
  const auto found = members_.find(name);
  return found != members_.end() && found->second.fenced;
}

void roster::heard(const std::string& name, const net::address& where, time_point now) {
  if (name.empty() || name == options_.self.name || where.port == 0 || members_.contains(name))
    return;
  auto& one = members_[name];
  one.seen.name = name;
  one.seen.where = where;
  one.seen.since = now;
}

void roster::take(const node_card& card, const node_card& own, std::int64_t clock_ms) {
  const auto found = members_.find(card.name);
  if (found == members_.end() || !found->second.seen.up())
    return;
  auto& one = found->second;
  const auto gap = card.clock_ms - clock_ms;
  one.seen.note = std::abs(gap) > clock_gap_ms_max
                      ? fmt::format("its clock differs from ours by {} s; set both by NTP: logs "
                                    "and times in answers will not fit together",
                                    gap / 1000)
                      : "";
  const auto same_replica = [&](const replica_report& theirs) {
    return std::any_of(own.replicas.begin(), own.replicas.end(), [&](const replica_report& ours) {
      return ours.status.replica == theirs.status.replica;
    });
  };
  const bool same_hub = card.hub != hub_id{} && card.hub == own.hub;
  const bool collide =
      same_hub || std::any_of(card.replicas.begin(), card.replicas.end(), same_replica);
  if (collide && options_.incarnation > card.incarnation && !end_)
    end_ = error{errc::conflict, fmt::format("node '{}' has drawn the same id; start this process "
                                             "anew, and it draws others",
                                             card.name)};
  one.seen.card = card;
}

void roster::measure(const std::vector<net::peer_stats>& stats) {
  for (auto& [name, one] : members_) {
    const auto found = std::find_if(stats.begin(), stats.end(), [&](const net::peer_stats& row) {
      return row.peer.name == name;
    });
    one.seen.wire = found == stats.end() ? net::peer_stats{} : *found;
  }
}

roster_view roster::view() const {
  roster_view out;
  for (const auto& [name, one] : members_)
    if (one.of_file || one.seen.card)
      out.members.push_back(one.seen);
  out.end = end_;
  return out;
}

} // namespace troupe::actors
