#include "actors/worker/rank_seat.hpp"

#include <fmt/core.h>

#include <mutex>
#include <utility>

namespace troupe::actors {

class seat_channel final : public engine::rank_channel {
public:
  void meet(std::vector<rank_inbox> others) {
    const std::lock_guard lock{mutex_};
    others_ = std::move(others);
  }

  void send(const engine::exchange_frame& frame) override {
    const rank_frame message{
        frame.from, frame.number, frame.tag, {frame.given.owner, frame.given.bytes}};
    const std::lock_guard lock{mutex_};
    for (const auto& other : others_)
      post(other, message);
  }

  void abort(const error& why) override {
    const std::lock_guard lock{mutex_};
    for (const auto& other : others_)
      post(other, detach_atom::value, to_caf(why));
  }

private:
  std::mutex mutex_;
  std::vector<rank_inbox> others_;
};

namespace {

using self_ptr = rank_seat_actor::stateful_pointer<rank_seat_state>;

void take_frame(rank_seat_state& st, const rank_frame& frame) {
  const auto owner = std::make_shared<const net::shared_bytes>(frame.given);
  st.end->deliver({.from = frame.from,
                   .number = frame.number,
                   .tag = frame.tag,
                   .given = {owner, owner->view()}});
}

/// The seats of all ranks, this one among them. The answer is the worker, which may be told to load
/// once all seats have met.
caf::result<worker_actor> meet(self_ptr self, const rank_peers& all) {
  auto& st = state(self);
  if (all.inboxes.size() != st.end->ranks())
    return to_caf({errc::invalid_argument, fmt::format("{} seats for a group of {} ranks",
                                                       all.inboxes.size(), st.end->ranks())});
  st.peers = all.inboxes;
  auto others = all.inboxes;
  others.erase(others.begin() + st.rank);
  for (const auto& other : others)
    self->monitor(other);
  st.channel->meet(std::move(others));
  return st.worker;
}

void on_down(self_ptr self, const caf::down_msg& down) {
  auto& st = state(self);
  if (down.source == st.owner->address())
    return self->quit(caf::exit_reason::user_shutdown);
  const auto stopped = [&](std::uint32_t rank) {
    return error{errc::peer_down, fmt::format("{} stopped", st.end->name_of(rank))};
  };
  if (down.source == st.worker->address()) {
    st.end->abort(stopped(st.rank));
    return self->quit(to_caf(stopped(st.rank)));
  }
  for (std::uint32_t rank = 0; rank < st.peers.size(); ++rank)
    if (st.peers[rank]->address() == down.source)
      st.end->abort(stopped(rank));
}

} // namespace

rank_seat_state::~rank_seat_state() {
  if (end)
    end->lose({errc::peer_down, "the ranks of the replica were told to stop"});
  if (worker)
    caf::anon_send_exit(worker, caf::exit_reason::user_shutdown);
}

std::vector<std::string> names_of_ranks(const rank_order& whole) {
  std::vector<std::string> names;
  for (const auto& node : whole.nodes)
    names.push_back(fmt::format("rank {} (node {})", names.size(), node));
  return names;
}

rank_seat_actor::behavior_type rank_seat(self_ptr self, rank_seat_options options) {
  auto& st = state(self);
  auto channel = std::make_unique<seat_channel>();
  st.channel = channel.get();
  st.rank = options.rank;
  const auto ranks = static_cast<std::uint32_t>(options.names.size());
  st.end = std::make_shared<engine::rank_end>(options.rank, std::move(options.names),
                                              std::move(channel));
  const rank_place place{.rank = st.rank, .ranks = ranks, .group = st.end};
  self->set_down_handler([self](const caf::down_msg& down) { on_down(self, down); });
  st.worker = self->spawn<caf::detached + caf::monitored>(
      worker, worker_options{[make = std::move(options.make), place] { return make(place); },
                             std::move(options.progress), st.end});
  st.owner = std::move(options.owner);
  self->monitor(st.owner);
  return {
      [self](const rank_frame& frame) { take_frame(state(self), frame); },
      [self](detach_atom, const caf::error& why) { state(self).end->lose(from_caf(why)); },
      [self](attach_atom, const rank_peers& all) { return meet(self, all); },
  };
}

} // namespace troupe::actors
