#include "tests/sim/network.hpp"

#include "troupe/base/ids.hpp"

#include <algorithm>

namespace troupe::sim {

namespace {

constexpr auto dial_min = std::chrono::milliseconds{5};
constexpr auto dial_max = std::chrono::milliseconds{150};

} // namespace

node_index network::add(std::string name) {
  nodes_.emplace_back().name = std::move(name);
  return node_index{static_cast<std::uint32_t>(nodes_.size() - 1)};
}

void network::introduce(node_index a, node_index b) {
  auto& on = links_[std::minmax(a, b)];
  on.ends = {std::min(a, b), std::max(a, b)};
  consider(on);
}

network::link& network::between(node_index a, node_index b) { return links_.at(std::minmax(a, b)); }

duration network::pick(duration from, duration to) {
  return from + duration{static_cast<duration::rep>(
                    random_.below(static_cast<std::uint64_t>((to - from).count()) + 1))};
}

template <class Visit>
void network::each_link(node_index at, Visit visit) {
  for (auto& [ends, on] : links_) {
    if (ends.first == at || ends.second == at)
      visit(on, std::size_t{ends.first == at ? 0U : 1U});
  }
}

void network::start(node_index at, process& who) {
  auto& node = node_of(at);
  node.who = &who;
  ++node.life;
  node.id = ++last_id_;
  log_.note(time_.now(), "{} starts", node.name);
  each_link(at, [&](link& on, std::size_t) { consider(on); });
}

void network::kill(node_index at) {
  auto& node = node_of(at);
  log_.note(time_.now(), "{} dies", node.name);
  node.who = nullptr;
  node.stopped = false;
  node.backlog.clear();
  each_link(at, [&](link& on, std::size_t side) {
    on.open[side] = false;
    if (on.open[1 - side] && on.cut == 0)
      close_later(on, 1 - side, pick(duration{0}, options_.broken_after), true);
  });
}

void network::stop(node_index at) {
  auto& node = node_of(at);
  if (node.who == nullptr || node.stopped)
    return;
  log_.note(time_.now(), "{} stands still", node.name);
  node.stopped = true;
  const auto stops = ++node.stops;
  each_link(at, [&](link& on, std::size_t side) {
    const auto patience = options_.dead_after + pick(duration{0}, options_.dead_late);
    time_.after(patience, [this, &on, side, stops, at, session = on.session] {
      const auto& slow = node_of(at);
      if (slow.stopped && slow.stops == stops && on.session == session && on.open[1 - side])
        close_later(on, 1 - side, duration{0}, true);
    });
  });
}

void network::go_on(node_index at) {
  auto& node = node_of(at);
  if (!node.stopped)
    return;
  log_.note(time_.now(), "{} goes on", node.name);
  node.stopped = false;
  const auto life = node.life;
  while (node.who != nullptr && node.life == life && !node.stopped && !node.backlog.empty()) {
    const auto next = std::move(node.backlog.front());
    node.backlog.pop_front();
    next();
  }
  each_link(at, [&](link& on, std::size_t) { consider(on); });
}

void network::forgive(node_index a, node_index b) {
  auto& on = between(a, b);
  log_.note(time_.now(), "{} and {} forgive each other", name(a), name(b));
  on.fenced = {};
  consider(on);
}

void network::cut(node_index a, node_index b) {
  auto& on = between(a, b);
  if (on.cut != 0)
    return;
  log_.note(time_.now(), "{} and {} are cut off", name(a), name(b));
  on.cut = ++last_cut_;
  for (std::size_t side = 0; side < 2; ++side) {
    const auto patience = options_.dead_after + pick(duration{0}, options_.dead_late);
    time_.after(patience, [this, &on, side, cut = on.cut, session = on.session] {
      if (on.cut == cut && on.session == session && on.open[side])
        close_later(on, side, duration{0}, true);
    });
  }
}

void network::heal(node_index a, node_index b) {
  auto& on = between(a, b);
  if (on.cut == 0)
    return;
  log_.note(time_.now(), "{} and {} meet again", name(a), name(b));
  on.cut = 0;
  for (std::size_t side = 0; side < 2; ++side) {
    // What waited sets out again, in order.
    auto waiting = std::exchange(on.under_way[side], {});
    for (auto& [when, what] : waiting)
      enqueue(on, side, std::move(what));
    if (on.open[side] && !on.open[1 - side])
      close_later(on, side, pick(duration{0}, options_.broken_after), true);
  }
  consider(on);
}

void network::send(node_index from, node_index to, message what) {
  auto& on = between(from, to);
  const std::size_t side = on.ends[0] == from ? 0 : 1;
  if (on.open[side])
    enqueue(on, side, std::move(what));
}

void network::enqueue(link& on, std::size_t side, message what) {
  auto& last = on.last_arrival[side];
  last = std::max(last, time_.now() + pick(options_.delay_min, options_.delay_max));
  on.under_way[side].emplace_back(last, std::move(what));
  time_.after(last - time_.now(),
              [this, &on, side, session = on.session] { arrive(on, side, session); });
}

/// The oldest message of `side` is due at the other end.
void network::arrive(link& on, std::size_t side, std::uint64_t session) {
  auto& way = on.under_way[side];
  if (on.session != session || on.cut != 0 || way.empty() || way.front().first > time_.now())
    return;
  auto what = std::move(way.front().second);
  way.pop_front();
  run_in(on.ends[1 - side], duration{0},
         [this, &on, side, session, what = std::move(what)]() mutable {
           if (on.session == session && on.open[1 - side])
             node_of(on.ends[1 - side]).who->receive(on.ends[side], std::move(what));
         });
}

void network::run_in(node_index at, duration time, job what) {
  const auto life = node_of(at).life;
  time_.after(time, [this, at, life, what = std::move(what)]() mutable {
    auto& node = node_of(at);
    if (node.who == nullptr || node.life != life)
      return;
    if (node.stopped)
      node.backlog.push_back(std::move(what));
    else
      what();
  });
}

void network::close_later(link& on, std::size_t side, duration time, bool fence) {
  run_in(on.ends[side], time, [this, &on, side, fence, session = on.session] {
    if (on.session == session && on.open[side])
      close(on, side, fence);
  });
}

void network::close(link& on, std::size_t side, bool fence) {
  const auto at = on.ends[side];
  const auto peer = on.ends[1 - side];
  log_.note(time_.now(), "{} sees {} down", name(at), name(peer));
  on.open[side] = false;
  if (fence) {
    on.fenced = on.ids;
    on.fence_reported = false;
  }
  if (on.open[1 - side] && on.cut == 0)
    close_later(on, 1 - side, pick(duration{0}, options_.broken_after), fence);
  const auto life = node_of(at).life;
  node_of(at).who->peer_down(peer);
  if (node_of(at).life == life)
    consider(on);
}

bool network::is_fenced(const link& on) const {
  return on.fenced[0] == node_of(on.ends[0]).id && on.fenced[1] == node_of(on.ends[1]).id;
}

/// Sees to it that two nodes that can talk do.
void network::consider(link& on) {
  const auto& a = node_of(on.ends[0]);
  const auto& b = node_of(on.ends[1]);
  if (on.open[0] || on.open[1] || on.cut != 0 || a.who == nullptr || b.who == nullptr)
    return;
  if (is_fenced(on)) {
    if (!std::exchange(on.fence_reported, true))
      on_fenced(on.ends[0], on.ends[1]);
    return;
  }
  if (std::exchange(on.dialling, true))
    return;
  time_.after(pick(dial_min, dial_max), [this, &on] {
    on.dialling = false;
    connect(on);
  });
}

void network::connect(link& on) {
  const auto& a = node_of(on.ends[0]);
  const auto& b = node_of(on.ends[1]);
  if (on.open[0] || on.open[1] || on.cut != 0 || a.who == nullptr || b.who == nullptr ||
      a.stopped || b.stopped || is_fenced(on)) {
    consider(on);
    return;
  }
  log_.note(time_.now(), "{} and {} connect", a.name, b.name);
  on.session = ++last_session_;
  on.ids = {a.id, b.id};
  on.open = {true, true};
  on.under_way = {};
  on.last_arrival = {};
  on.fenced = {};
  for (std::size_t side = 0; side < 2; ++side) {
    run_in(on.ends[side], duration{0}, [this, &on, side, session = on.session] {
      if (on.session == session && on.open[side])
        node_of(on.ends[side]).who->peer_up(on.ends[1 - side]);
    });
  }
}

bool network::all_connected() const {
  return std::ranges::all_of(links_, [&](const auto& entry) {
    const auto& on = entry.second;
    return !alive(on.ends[0]) || !alive(on.ends[1]) || (on.open[0] && on.open[1]);
  });
}

} // namespace troupe::sim
