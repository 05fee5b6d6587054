#include "transport/caf/host.hpp"

#include "transport/caf/proxy.hpp"
#include "transport/caf/watch.hpp"
#include "troupe/base/log.hpp"
#include "troupe/transport/caf.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <future>
#include <utility>

namespace troupe::net::seam {

host::host(caf::actor_system& sys, settings how)
    : system_{sys}, settings_{std::move(how)}, proxies_{sys, *this}, runner_{sys,
                                                                             settings_.all_inline} {
  runner_.proxy_registry_ptr(&proxies_);
}

host::~host() { stop(); }

result<void> host::start() {
  auto options = settings_.how;
  if (options.node.self.name.empty())
    options.node.self.name = caf::to_string(system_.node());
  auto made = ucx::make(std::move(options), *this);
  if (!made)
    return fail(made.error());
  net_ = std::move(*made);
  return {};
}

void host::stop() {
  if (stopped_.exchange(true) || net_ == nullptr)
    return;
  net_->stop();
  proxies_.clear();
}

result<address> host::listen(const address& where) {
  auto at = net_->listen(where);
  if (at) {
    const std::lock_guard guard{mutex_};
    listens_at_ = *at;
  }
  return at;
}

host::peer_ref host::peer_of(const caf::node_id& node) {
  const std::lock_guard guard{mutex_};
  auto& found = peers_[node];
  if (found == nullptr) {
    found = std::make_shared<peer>(node);
    if (const auto place = places_.find(node); place != places_.end())
      found->listens_at(place->second);
  }
  return found;
}

host::peer_ref host::peer_at(const node_id& connection) const {
  const std::lock_guard guard{mutex_};
  const auto found = connected_.find(connection);
  return found == connected_.end() ? nullptr : found->second;
}

void host::connect(const address& where, connect_done done) {
  const std::lock_guard guard{mutex_};
  dials_.emplace(net_->dial(where), dialling{std::move(done), nullptr});
}

result<caf::node_id> host::connect(const address& where, std::chrono::milliseconds limit) {
  const auto waits = std::make_shared<std::promise<result<caf::node_id>>>();
  auto answer = waits->get_future();
  connect(where, [waits](const result<caf::node_id>& outcome) { waits->set_value(outcome); });
  if (answer.wait_for(limit) != std::future_status::ready)
    return fail(errc::timed_out, fmt::format("no answer from {}", to_string(where)));
  return answer.get();
}

void host::dial_for(const peer_ref& wanted, const address& where) {
  const std::lock_guard guard{mutex_};
  dials_.emplace(net_->dial(where), dialling{{}, wanted});
}

void host::disconnect(const caf::node_id& node) {
  if (const auto at = peer_of(node)->connection())
    net_->drain(*at);
}

void host::forgive(const node_id& peer) { net_->forgive(peer); }

void host::publish(const std::string& name, published what) {
  const std::lock_guard guard{mutex_};
  published_.insert_or_assign(name, std::move(what));
}

void host::unpublish(const std::string& name) {
  const std::lock_guard guard{mutex_};
  published_.erase(name);
}

std::uint64_t host::lookup(const caf::node_id& at, const std::string& name, lookup_done done) {
  const auto to = peer_of(at);
  const auto number = next_question_++;
  {
    const std::lock_guard guard{mutex_};
    questions_.emplace(number, question{to, std::move(done)});
  }
  std::vector<char> stream;
  auto text = name;
  result<void> sent;
  if (auto e = write(system_, stream, text))
    sent = fail(errc::internal, system_.render(e));
  else
    sent = dispatch(*to, pack({.what = verb::lookup, .id = number}, {std::move(stream), {}}),
                    pressure::insist);
  if (!sent)
    if (const auto waiting = take_question(number))
      waiting(fail(sent.error()));
  return number;
}

result<published> host::lookup(const caf::node_id& at, const std::string& name,
                               std::chrono::milliseconds limit) {
  const auto waits = std::make_shared<std::promise<result<published>>>();
  auto answer = waits->get_future();
  const auto number =
      lookup(at, name, [waits](const result<published>& found) { waits->set_value(found); });
  if (answer.wait_for(limit) != std::future_status::ready && take_question(number))
    return fail(errc::timed_out, fmt::format("no answer to the lookup of '{}'", name));
  return answer.get();
}

host::lookup_done host::take_question(std::uint64_t number) {
  const std::lock_guard guard{mutex_};
  auto asked = questions_.extract(number);
  return asked.empty() ? lookup_done{} : std::move(asked.mapped().done);
}

void host::observe(std::function<void(const wire_event&)> user) {
  const std::lock_guard guard{mutex_};
  observer_ = std::move(user);
}

void host::tell(const wire_event& what) const {
  std::function<void(const wire_event&)> user;
  {
    const std::lock_guard guard{mutex_};
    user = observer_;
  }
  if (user)
    user(what);
}

void host::heard_of(const known_node& other) {
  tell({.what = wire_event::kind::heard,
        .name = other.name,
        .where = other.listens_at,
        .node = {},
        .why = {errc::none, ""}});
}

void host::peer_up(const peer_facts& from) {
  {
    const std::lock_guard guard{mutex_};
    facts_.insert_or_assign(from.id, from);
  }
  introduce(from.id);
}

void host::dialed(dial_id dial, const address& where, const result<node_id>& outcome) {
  dialling what;
  caf::node_id node;
  {
    const std::lock_guard guard{mutex_};
    const auto found = dials_.find(dial);
    if (found == dials_.end())
      return;
    what = std::move(found->second);
    dials_.erase(found);
    if (outcome) {
      const auto known = connected_.find(*outcome);
      if (known == connected_.end()) {
        awaiting_intro_[*outcome].push_back(std::move(what));
        return;
      }
      node = known->second->node();
    }
  }
  settle(what, outcome ? result<caf::node_id>{node}
                       : fail(outcome.error().code,
                              fmt::format("{}: {}", to_string(where), outcome.error().note)));
}

/// Tells whoever dialled how it went.
void host::settle(const dialling& what, const result<caf::node_id>& outcome) {
  if (what.done)
    what.done(outcome);
  // Nobody is there, or another node: the wanted one was started anew.
  const bool found = outcome && what.wanted != nullptr && *outcome == what.wanted->node();
  if (what.wanted != nullptr && !found && what.wanted->state() == peer_state::dialling)
    lost(what.wanted);
}

void host::refused(const peer_facts& who, const error& why) {
  tell({.what = wire_event::kind::refused,
        .name = who.name,
        .where = who.listens_at,
        .node = {},
        .peer = who.id,
        .why = why});
}

void host::peer_down(const peer_facts& from, const error& why) {
  peer_ref who;
  std::vector<dialling> waiting;
  {
    const std::lock_guard guard{mutex_};
    facts_.erase(from.id);
    if (const auto found = connected_.find(from.id); found != connected_.end()) {
      who = found->second;
      connected_.erase(found);
    }
    if (auto found = awaiting_intro_.extract(from.id); !found.empty())
      waiting = std::move(found.mapped());
  }
  for (const auto& what : waiting)
    settle(what, fail(why));
  if (who == nullptr)
    return;
  if (why.code != errc::draining) {
    const std::lock_guard guard{mutex_};
    places_.erase(who->node());
  }
  lost(who);
  tell({.what = wire_event::kind::down,
        .name = from.name,
        .where = from.listens_at,
        .node = who->node(),
        .why = why});
}

/// Nobody will hear from this node: ends its proxies, and answers what waits for it.
void host::lost(const peer_ref& who) {
  who->down();
  std::vector<lookup_done> waiting;
  {
    const std::lock_guard guard{mutex_};
    if (const auto at = peers_.find(who->node()); at != peers_.end() && at->second == who)
      peers_.erase(at);
    for (auto at = questions_.begin(); at != questions_.end();) {
      const bool hit = at->second.at == who;
      if (hit)
        waiting.push_back(std::move(at->second.done));
      at = hit ? questions_.erase(at) : std::next(at);
    }
  }
  for (const auto& done : waiting)
    done(fail(errc::peer_down, "the node that was asked is gone"));
  const auto why = caf::make_error(caf::exit_reason::remote_link_unreachable);
  for (const auto& open : who->take_requests()) {
    if (const auto from = caf::actor_cast<caf::strong_actor_ptr>(open.from))
      from->enqueue(nullptr, open.response, caf::make_message(why), nullptr);
  }
  for (const auto actor : who->take_watched()) {
    if (const auto watched = system_.registry().get(actor))
      watched->get()->detach(watch::token_of(*who));
  }
  proxies_.erase(who->node());
  runner_.run();
}

caf::strong_actor_ptr host::make_proxy(caf::node_id node, caf::actor_id actor) {
  if (!node || actor == caf::invalid_actor_id || stopped_)
    return nullptr;
  const auto to = peer_of(node);
  caf::actor_config config;
  auto out =
      caf::make_actor<proxy, caf::strong_actor_ptr>(actor, node, &system_, config, *this, to);
  // Asking needs nothing of CAF; what follows from a failure does, and comes later.
  if (const auto sent =
          dispatch(*to, pack({.what = verb::monitor, .dst = actor}, {}), pressure::insist);
      !sent)
    net_->post([this, to, actor] {
      forget(to, actor, caf::make_error(caf::exit_reason::remote_link_unreachable));
    });
  return out;
}

void host::forget(const peer_ref& who, caf::actor_id actor, caf::error reason) {
  constexpr std::size_t ended_max = 4096;
  {
    const std::lock_guard guard{mutex_};
    ended_.emplace_back(who->node(), actor);
    if (ended_.size() > ended_max)
      ended_.pop_front();
  }
  proxies_.erase(who->node(), actor, std::move(reason));
}

} // namespace troupe::net::seam
