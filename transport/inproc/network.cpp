#include "transport/inproc/network.hpp"

#include "transport/inproc/node.hpp"
#include "troupe/base/check.hpp"

#include <algorithm>
#include <utility>

namespace troupe::net::inproc {

network::network(const network_options& options) : options_{options}, random_{options.seed} {
  TROUPE_CHECK(options.delay_min <= options.delay_max, "the least delay is above the largest");
}

network::~network() = default;

transport& network::add(node_options options, handler& user) {
  if (!options.self.id)
    options.self.id = {random_(), random_() | 1};
  nodes_.push_back(std::make_unique<node>(*this, std::move(options), user));
  return *nodes_.back();
}

duration network::delay() {
  const auto span = static_cast<std::uint64_t>((options_.delay_max - options_.delay_min).count());
  return options_.delay_min + duration{static_cast<std::int64_t>(random_.below(span + 1))};
}

void network::schedule(duration after, node& at, std::function<void(node&)> what) {
  queue_.emplace(std::pair{now_ + after, counter_++}, happening{&at, std::move(what)});
}

void network::across(node& from, node& to, std::function<void(node&)> what) {
  if (is_cut(from, to))
    held_.emplace_back(&from, happening{&to, std::move(what)});
  else
    schedule(delay(), to, std::move(what));
}

bool network::is_cut(const node& a, const node& b) const {
  return cuts_.contains(std::minmax(&a, &b));
}

node& network::find(const transport& of) const {
  const auto found =
      std::find_if(nodes_.begin(), nodes_.end(), [&](const auto& n) { return n.get() == &of; });
  TROUPE_CHECK(found != nodes_.end(), "a node of another network");
  return **found;
}

node* network::listener_at(const address& where) const {
  for (const auto& n : nodes_)
    if (!n->dead_ && n->listens_at_.port != 0 && n->listens_at_ == where)
      return n.get();
  return nullptr;
}

node* network::next_due() const {
  node* out = nullptr;
  for (const auto& n : nodes_)
    if (n->runs() && (out == nullptr || n->mesh_.due() < out->mesh_.due()))
      out = n.get();
  return out != nullptr && out->mesh_.due() != time_point::max() ? out : nullptr;
}

void network::run(node& at, const std::function<void(node&)>& what) {
  if (at.dead_)
    return;
  if (at.stopped_) {
    at.backlog_.push_back(what);
    return;
  }
  what(at);
  at.settle();
}

bool network::step() {
  auto* const due = next_due();
  if (due == nullptr && queue_.empty())
    return false;
  if (queue_.empty() || (due != nullptr && due->mesh_.due() < queue_.begin()->first.first)) {
    now_ = std::max(now_, due->mesh_.due());
    due->mesh_.tick(now_);
    due->settle();
    return true;
  }
  now_ = std::max(now_, queue_.begin()->first.first);
  const auto next = std::move(queue_.begin()->second);
  queue_.erase(queue_.begin());
  run(*next.at, next.what);
  return true;
}

void network::run_for(duration time) {
  const auto until = now_ + time;
  static_cast<void>(run_until([] { return false; }, time));
  now_ = std::max(now_, until);
}

bool network::run_until(const std::function<bool()>& done, duration limit) {
  const auto until = now_ + limit;
  while (!done()) {
    const auto* due = next_due();
    const auto tick = due == nullptr ? time_point::max() : due->mesh_.due();
    const auto event = queue_.empty() ? time_point::max() : queue_.begin()->first.first;
    if (std::min(tick, event) > until || !step())
      return false;
  }
  return true;
}

void network::kill(transport& of) {
  auto& n = find(of);
  n.dead_ = true;
  n.listens_at_ = {};
  n.break_links(nullptr, "the process of the peer is gone");
}

void network::stop(transport& of) { find(of).stopped_ = true; }

void network::resume(transport& of) {
  auto& n = find(of);
  n.stopped_ = false;
  for (auto& what : std::exchange(n.backlog_, {}))
    schedule(duration{0}, n, std::move(what));
}

void network::cut(transport& a, transport& b) {
  cuts_.insert(std::minmax<const node*>(&find(a), &find(b)));
}

void network::heal(transport& a, transport& b) {
  cuts_.erase(std::minmax<const node*>(&find(a), &find(b)));
  for (auto& [from, next] : std::exchange(held_, {}))
    across(*from, *next.at, std::move(next.what));
}

void network::break_links(transport& a, transport& b) {
  find(a).break_links(&find(b), "the link broke");
  find(b).break_links(&find(a), "the link broke");
}

std::uint64_t network::buffers_out(const transport& of) const {
  return find(of).pool_.stats().buffers_out;
}

} // namespace troupe::net::inproc
