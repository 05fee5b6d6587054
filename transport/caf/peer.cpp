#include "transport/caf/peer.hpp"

#include <utility>

namespace troupe::net::seam {

namespace {

/// What may wait for a connection to a node that nobody has talked to yet.
constexpr std::uint64_t waiting_bytes_max = std::uint64_t{16} << 20;

} // namespace

peer_state peer::state() const {
  const std::lock_guard guard{mutex_};
  return state_;
}

std::optional<node_id> peer::connection() const {
  const std::lock_guard guard{mutex_};
  return state_ == peer_state::up ? std::optional{id_} : std::nullopt;
}

void peer::listens_at(const address& where) {
  const std::lock_guard guard{mutex_};
  address_ = where;
}

result<void> peer::send(transport& over, parcel what, pressure how, std::optional<address>& dial) {
  const std::lock_guard guard{mutex_};
  if (state_ == peer_state::gone)
    return fail(errc::peer_down, "the node of the actor is gone");
  if (state_ == peer_state::up) {
    auto sent = over.send(id_, what.header, std::move(what.payload), how);
    return sent ? result<void>{} : fail(sent.error());
  }
  if (state_ == peer_state::known) {
    if (address_.port == 0)
      return fail(errc::peer_down, "nobody has told where the node of the actor listens");
    state_ = peer_state::dialling;
    dial = address_;
  }
  const auto bytes = what.bytes();
  if (how == pressure::refuse && waiting_bytes_ + bytes > waiting_bytes_max)
    return fail(errc::busy, "too much waits for the connection to the node");
  waiting_bytes_ += bytes;
  waiting_.push_back({std::move(what), how});
  return {};
}

bool peer::up(transport& over, const node_id& id) {
  const std::lock_guard guard{mutex_};
  if (state_ == peer_state::gone)
    return false;
  state_ = peer_state::up;
  id_ = id;
  waiting_bytes_ = 0;
  // Bounded when it was taken in, so the queue takes it whole.
  for (auto& [what, how] : std::exchange(waiting_, {}))
    static_cast<void>(over.send(id_, what.header, std::move(what.payload), pressure::insist));
  return true;
}

void peer::down() {
  const std::lock_guard guard{mutex_};
  state_ = peer_state::gone;
  id_ = {};
  waiting_.clear();
  waiting_bytes_ = 0;
}

bool peer::watches(caf::actor_id actor) {
  const std::lock_guard guard{requests_mutex_};
  return watched_.insert(actor).second;
}

std::vector<caf::actor_id> peer::take_watched() {
  const std::lock_guard guard{requests_mutex_};
  const auto out = std::exchange(watched_, {});
  return {out.begin(), out.end()};
}

void peer::asks(caf::actor_id from, const open_request& what) {
  const std::lock_guard guard{requests_mutex_};
  requests_.insert_or_assign(key{from, what.response.request_id().integer_value()}, what);
}

void peer::answered(caf::actor_id from, caf::message_id response) {
  const std::lock_guard guard{requests_mutex_};
  requests_.erase(key{from, response.request_id().integer_value()});
}

std::vector<open_request> peer::take_requests() {
  const std::lock_guard guard{requests_mutex_};
  std::vector<open_request> out;
  for (auto& [where, what] : std::exchange(requests_, {}))
    out.push_back(std::move(what));
  return out;
}

} // namespace troupe::net::seam
